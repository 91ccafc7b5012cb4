"""The training loop and what belongs to it: logging, early stopping, non-finite steps, expected time."""
