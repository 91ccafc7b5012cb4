"""What is kept on disk: the run folder, its manifest, checkpoints, and the cache of frozen features."""
