"""Daily use of a finished run: score the exports of a plant, take the model elsewhere, show what it says."""
