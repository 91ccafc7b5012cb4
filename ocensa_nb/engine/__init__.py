"""One optimizer step, and the logits of rows."""
