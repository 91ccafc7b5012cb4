"""All figures, and the animation of a training."""
