"""Measure what each optimization gains, and predict the time of a training."""
