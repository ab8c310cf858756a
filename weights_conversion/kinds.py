"""Which numbers can be weights: floating point, and finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import ml_dtypes
import numpy as np

from weights_conversion.errors import CheckpointError, listed, quoted
from weights_conversion.tensors import LazyTensor

FLOATS = tuple(np.dtype(t) for t in (np.float16, ml_dtypes.bfloat16, np.float32, np.float64))
# what quantised weights are stored as. float8 is among them: its range is so small that files keep a scale beside it,
# and without that the numbers are others
PACKED = tuple(
    np.dtype(t) for t in (np.int8, np.uint8, ml_dtypes.float8_e4m3fn, ml_dtypes.float8_e5m2)
)
# what lies beside them, as torch.ao, bitsandbytes, GPTQ and AWQ name it
COMPANIONS = (
    *("*scale", "*scales", "*scale_inv", "*zero_point", "*zero_points", "*.SCB", "*absmax"),
    *("*quant_state*", "*.qweight", "*.qzeros", "*.g_idx"),
)


def check_kinds(file: Mapping[str, LazyTensor], keys: Iterable[str]) -> None:
    """Raises CheckpointError where a tensor that becomes a parameter is of a kind that holds no weights: told from the
    header, before a value is read. Integers would be taken for numbers a hundred times too large."""
    odd = [key for key in keys if key in file and file[key].dtype not in FLOATS]
    if not odd:
        return
    # the first speaks for all: a quantised file packs every matrix alike
    dtype = file[odd[0]].dtype
    floats = ", ".join(kind.name for kind in FLOATS)
    if dtype in PACKED:
        beside = [key for key in file if key not in odd and _is_companion(key)]
        scales = f", and has {listed(beside, 1)} beside them" if beside else ""
        raise CheckpointError(
            f"the file is quantised: it stores {listed(odd, 3)} as {dtype.name}{scales}; take the file of the float "
            f"model ({floats})"
        )
    raise CheckpointError(f"the file stores {listed(odd, 3)} as {dtype.name}; weights are {floats}")


def _is_companion(key: str) -> bool:
    return any(fnmatchcase(key, pattern) for pattern in COMPANIONS)


def not_finite(
    file: Mapping[str, LazyTensor], keys: Sequence[str], dtype: np.dtype
) -> CheckpointError:
    """The error that names the one of these tensors that is not finite in a type."""
    bad = {key: _bad(file[key], dtype) for key in keys}
    key = max(bad, key=bad.__getitem__)  # the one that is worst
    return CheckpointError(
        f"{quoted(key)} is not finite in {dtype.name}: {bad[key]:,} of its {math.prod(file[key].shape):,} values are "
        f"nan, infinite or too large; the file is damaged or its training diverged, take another one"
    )


def _bad(tensor: LazyTensor, dtype: np.dtype) -> int:
    with np.errstate(over="ignore", invalid="ignore"):
        values = tensor.read(()).astype(dtype)
    return values.size - int(np.isfinite(values).sum())
