"""Checkpoints between PyTorch's names and fmjax's, by tables that are read in both directions. Imports neither torch
nor fmjax."""

from collections.abc import Iterable

from weights_conversion.dinov2 import DINOV2, TAO_NVDINOV2
from weights_conversion.errors import CheckpointError
from weights_conversion.hf_clip import HF_CLIP
from weights_conversion.hf_dinov2 import HF_DINOV2, HF_DINOV2_WITH_REGISTERS
from weights_conversion.open_clip import OPEN_CLIP
from weights_conversion.open_clip_timm import OPEN_CLIP_TIMM
from weights_conversion.report import MisfitError, Misfits
from weights_conversion.rules import Conversion, Dialect, Rule, native, to_jax, to_torch
from weights_conversion.tensors import LazyTensor, in_memory, in_memory_tree
from weights_conversion.timm import TIMM

DIALECTS: dict[str, Dialect] = {
    d.name: d
    for d in (OPEN_CLIP, OPEN_CLIP_TIMM, TIMM, HF_CLIP, HF_DINOV2, HF_DINOV2_WITH_REGISTERS, DINOV2, TAO_NVDINOV2)
}

__all__ = [
    "DIALECTS",
    "CheckpointError",
    "Conversion",
    "Dialect",
    "LazyTensor",
    "MisfitError",
    "Misfits",
    "Rule",
    "detect",
    "get_dialect",
    "in_memory",
    "in_memory_tree",
    "native",
    "to_jax",
    "to_torch",
]


def get_dialect(name: str) -> Dialect:
    """The dialect of that name. Raises CheckpointError, with all names, for an unknown one."""
    if name not in DIALECTS:
        raise CheckpointError(f"unknown dialect {name!r}; the dialects are {', '.join(DIALECTS)}")
    return DIALECTS[name]


def detect(keys: Iterable[str], likely: Iterable[str] = ()) -> Dialect:
    """The dialect of a file with these keys, by each dialect's declared signature.

    Several dialects can share a signature; then the one named in `likely` is taken. Raises CheckpointError where none
    or more than one is left.
    """
    found = [d for d in DIALECTS.values() if d.matches(set(keys))]
    if len(found) > 1:
        found = [d for d in found if d.name in set(likely)] or found
    if len(found) == 1:
        return found[0]
    if not found:
        raise CheckpointError(
            f"the file's names follow none of the known dialects ({', '.join(DIALECTS)}); name one with --dialect"
        )
    raise CheckpointError(f"the file could be any of {', '.join(d.name for d in found)}; name one with --dialect")
