"""Whether a kernel does on a kind of device what the plain path does: tried at its first use there, and remembered.

A kernel that was made for a device may fail there, or be wrong, with a driver or a library that nobody has tried. So it
computes a small case beside the plain path, values and gradients; one that fails or deviates is not used.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import jaxlib.version
import numpy as np
from jaxtyping import Array

import fmjax
from fmjax.errors import escaped, safe
from fmjax.serial import from_dict, to_json, write_atomically
from fmjax.store.record import cache_folder, cache_place

FOLDER = "kernels"  # of the cache folder
# Each number that is rounded on the way to a result adds an error of eps / sqrt(12) of its own size or less, in the
# root of the mean of squares: XLA's attention is 0.2 to 0.7 eps from float32's. A token too many in the case is 1.2.
ALLOWED_EPS = 1.0


@dataclass(frozen=True)
class Kernel:
    """A way to compute a function of arrays of one shape, and the plain one beside it."""

    name: str  # as a sentence has it
    fast: Callable[..., Array]
    plain: Callable[..., Array]
    shape: tuple[int, ...]  # of each argument of the small case
    dtype: str
    inputs: tuple[str, ...] = ("q", "k", "v")

    @property
    def results(self) -> tuple[str, ...]:
        """What is compared."""
        return ("values", *(f"gradients of {name}" for name in self.inputs))


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What was found on a kind of device."""

    kernel: str
    device: str
    case: str  # dtype, shape and inputs
    versions: str  # of jax, jaxlib and fmjax
    reason: str = ""  # why it is not used


@cache
def verdict(kernel: Kernel, device_kind: str) -> Verdict:
    """The verdict on a kernel, remembered or found now; a line on stderr where it is switched off.

    On devices that are not here, which a program may be compiled for, nothing can be tried: there it is trusted.
    """
    case = f"{kernel.dtype} {' x '.join(map(str, kernel.shape))}, {', '.join(kernel.inputs)}"
    asked = Verdict(kernel=kernel.name, device=device_kind, case=case, versions=versions())
    here = [device for device in jax.local_devices() if device.device_kind == device_kind]
    if not here:
        return asked
    # another process may have tried it, and has kept what it found
    path = cache_place(FOLDER, to_json(asked), ".json")
    found = _read(path)
    if found is None:
        reason = tried(kernel, here[0])
        found = Verdict(**{**vars(asked), "reason": reason})
        _keep(path, found)
    if found.reason:
        line = f"note    {found.kernel} is switched off on {found.device!a}: {found.reason}"
        sys.stderr.write(safe(line) + "\n")
    return found


def versions() -> str:
    """What a verdict depends on besides the device."""
    jaxlib_version = jaxlib.version.__version__
    return f"jax {jax.__version__}, jaxlib {jaxlib_version}, fmjax {fmjax.__version__}"


def tried(kernel: Kernel, device: Any) -> str:
    """What is wrong with a kernel on a device that is here; "" where it agrees with the plain path."""
    # a model may be traced meanwhile, of whose program this is no part. A thread traces for itself alone; to compute at
    # once in the midst of a trace, as jax.ensure_compile_time_eval does, has no rule for Pallas' kernels
    with ThreadPoolExecutor(1) as alone:
        errors = alone.submit(_errors, kernel, device)
    try:
        return _judged(kernel, errors.result())
    except Exception as error:  # whatever a compiler or a driver raises
        return f"it fails ({type(error).__name__}: {escaped(str(error))})"


def _errors(kernel: Kernel, device: Any) -> list[float]:
    """How far each result of the small case is from the plain path's in float32."""
    rng = np.random.default_rng(0)
    numbers = [rng.standard_normal(kernel.shape, np.float32) for _ in kernel.results]
    with jax.default_device(device):
        given = [jnp.asarray(x, kernel.dtype) for x in numbers]
        found = jax.jit(partial(_both, kernel.fast))(*given)
        with jax.default_matmul_precision("highest"):
            exact = [x.astype(jnp.float32) for x in given]
            expected = jax.jit(partial(_both, kernel.plain))(*exact)
        return [float(apart(*pair)) for pair in zip(found, expected, strict=True)]


def _judged(kernel: Kernel, errors: list[float]) -> str:
    allowed = ALLOWED_EPS * float(jnp.finfo(kernel.dtype).eps)
    # nan is not below anything
    wrong = [
        name for name, error in zip(kernel.results, errors, strict=True) if not error <= allowed
    ]
    if not wrong:
        return ""
    error = errors[kernel.results.index(wrong[0])]
    return f"its {wrong[0]} deviate by {error:.2g}, where {allowed:.2g} is allowed"


def _both(function: Callable[..., Array], *given: Array) -> Any:
    """What a function gives, and its gradients."""
    *inputs, seed = given
    value, back = jax.vjp(function, *inputs)
    return value, *back(seed)


def apart(found: Array, expected: Array) -> Array:
    """The root of the mean of squared differences, over that of what is expected."""
    difference = found.astype(jnp.float32) - expected
    return jnp.linalg.norm(difference) / jnp.linalg.norm(expected)


def remembered() -> Iterator[Verdict]:
    """The verdicts of this machine on these versions."""
    for path in sorted((cache_folder() / FOLDER).glob("*.json")):
        found = _read(path)
        if found is not None and found.versions == versions():
            yield found


def _read(path: Path) -> Verdict | None:
    # whatever is wrong with what was kept: it is found again
    try:
        return from_dict(Verdict, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def _keep(path: Path, found: Verdict) -> None:
    # without a place for it, each process tries anew
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, to_json(found))
    except OSError:
        return
