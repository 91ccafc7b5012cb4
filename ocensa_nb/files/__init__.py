"""Atomic writes, reads of regular files only, checksums, locks and temporary folders."""
