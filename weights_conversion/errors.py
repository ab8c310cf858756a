"""What can be wrong with a checkpoint."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or does not fit the model it was meant for."""

    exit_code = 4
