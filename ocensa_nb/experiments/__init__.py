"""Grids of experiments: cases run by papermill in processes or on a cluster, their results and their report."""
