"""Predictions of a run: metrics, blend, calibration, verdict."""
