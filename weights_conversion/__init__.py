"""Checkpoints between PyTorch's names and fmjax's, by tables that are read in both directions. Imports neither torch
nor fmjax."""

from weights_conversion.detection import (
    candidates,
    detect,
    dialects,
    get_dialect,
    named,
    register,
    writing,
)
from weights_conversion.dialect import Constant, Dialect, Rule, zeros
from weights_conversion.errors import CheckpointError, listed, quoted
from weights_conversion.report import MisfitError, Misfits, cut
from weights_conversion.rules import Conversion, lossy_keys, native, reads_alike, to_jax, to_torch
from weights_conversion.tensors import Index, LazyTensor, in_memory, in_memory_tree

__all__ = [
    "CheckpointError",
    "Constant",
    "Conversion",
    "Dialect",
    "Index",
    "LazyTensor",
    "MisfitError",
    "Misfits",
    "Rule",
    "candidates",
    "cut",
    "detect",
    "dialects",
    "get_dialect",
    "in_memory",
    "in_memory_tree",
    "listed",
    "lossy_keys",
    "named",
    "native",
    "quoted",
    "reads_alike",
    "register",
    "to_jax",
    "to_torch",
    "writing",
    "zeros",
]
