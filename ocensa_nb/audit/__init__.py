"""Can the labels of a file be learnt? What can be known before any training."""
