"""Models: pure functions of their parameters, held in Flax NNX modules that are ordinary pytrees."""
