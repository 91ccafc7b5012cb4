"""Grids of experiments: cases of one training each, run by papermill in processes of this machine or of a cluster."""
