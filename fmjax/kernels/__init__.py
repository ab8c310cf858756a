"""What a block computes by a kernel of its own where a device has one, and by XLA's where it has not."""
