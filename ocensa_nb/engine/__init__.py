"""One optimizer step: batches, loss, optimizer, cached frozen features, memory."""
