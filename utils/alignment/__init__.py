"""The method: words and their vectors, batches of linked pairs, objectives, losses, continual alignment."""
