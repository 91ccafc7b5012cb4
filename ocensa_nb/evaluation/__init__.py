"""Inference, metrics, evaluation of a run, and predictions for a file."""
