"""The classifier: an encoder with one head per label, and how it is saved."""
