"""One optimizer step, fast: batches, loss, optimizer, dropout, cached frozen features, memory."""
