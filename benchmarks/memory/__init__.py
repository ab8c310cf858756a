"""The largest batch of a training step on cards of several sizes, by XLA's own account of memory."""
