"""The run folder, its manifest, checkpoints, and the cache of frozen features."""
