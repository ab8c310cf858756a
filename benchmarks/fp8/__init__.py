"""What products in FP8 would save of a step, and what it costs to cast for them."""
