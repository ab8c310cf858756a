"""fmjax's own programs as XLA compiles them for an H100 that is not here: kernels, bytes, and the least time."""
