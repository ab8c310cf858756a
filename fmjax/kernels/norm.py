"""Which kernel normalises the tokens of a block: by the device that a program is made for, the dtype and the width."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.errors import UsageError, escaped
from fmjax.kernels import trust, xla
from fmjax.kernels.attention import HALVES, compute_capability
from fmjax.sharding import first_device

# auto: the fastest that the devices, the dtype and the width allow
Kernel = Literal["auto", "xla", "pallas"]
# x [... D], scale [D], bias [D] or None, and epsilon -> x as it is, and normalised
Fork = Callable[[Array, Array, Array | None, float], tuple[Array, Array]]

LEAST = 8.0  # compute capability that Triton is tried on here
WIDEST = 8192  # numbers of a row that a program holds in registers
ROWS = 67  # of the case that a kernel is tried on
EPS = 1e-6  # there


def chosen(kernel: Kernel, mesh: Mesh | None, *, dtype: DTypeLike, width: int) -> Fork | None:
    """The function that normalises in a dtype, in a program for a mesh; None: the norm's own, by XLA.

    Raises UsageError where a kernel is asked for by its name and cannot run there.
    """
    if kernel == "xla" or (kernel == "auto" and jnp.dtype(dtype) not in HALVES):
        return None
    reason = unfit(mesh, dtype=dtype, width=width)
    if reason and kernel == "pallas":
        raise UsageError(f"--norms pallas: {reason}; choose xla, or auto")
    return None if reason else fork()


def unfit(mesh: Mesh | None, *, dtype: DTypeLike, width: int) -> str:
    """Why the kernel cannot run on a mesh, or on all devices; "" where it can."""
    device = first_device(mesh)
    kind, capability = device.device_kind, compute_capability(device)
    if capability is None or capability < LEAST:
        return f"the kernel is for GPUs of NVIDIA of compute capability 8.0, and not for {kind!r}"
    if jnp.dtype(dtype) not in HALVES:
        return f"the kernel is for bfloat16 and float16, and not for {jnp.dtype(dtype)}"
    if width > WIDEST:
        return f"tokens are {width} wide, and the kernel takes {WIDEST}"
    # XLA cannot divide a kernel that it does not know: each device would be given all tokens
    devices = jax.device_count() if mesh is None else mesh.size
    if devices > 1:
        return f"the kernel is for programs of one device, and this one has {devices}"
    return lacking() or _found_wrong(dtype, width, kind)


@cache
def lacking() -> str:
    """Why this jax makes no such kernel here; "" where it does."""
    # the language is to leave jax, and since 0.11 it asks for a GPU that is here before it makes a kernel for another
    small = jax.ShapeDtypeStruct((2, 8), jnp.bfloat16)
    try:
        traced = jax.jit(_fast_case).trace(small, small, small)
        traced.lower(lowering_platforms=("cuda",))
    except Exception as error:  # whatever a version raises
        return f"jax {jax.__version__} makes no kernel in Pallas here ({escaped(str(error))})"
    return ""


def fork() -> Fork:
    """The kernel, whose language takes longer to import than a model does."""
    return import_module("fmjax.kernels.pallas").forked


def _found_wrong(dtype: DTypeLike, width: int, device_kind: str) -> str:
    kernel = trust.Kernel(
        "the kernel of norms",
        _fast_case,
        _plain_case,
        (ROWS, width),
        str(jnp.dtype(dtype)),
        ("tokens", "scales", "biases"),
    )
    reason = trust.verdict(kernel, device_kind).reason
    return reason and f"on {device_kind!r} {reason}"


def _fast_case(x: Array, scales: Array, biases: Array) -> Array:
    return _case(fork(), x, scales, biases)


def _plain_case(x: Array, scales: Array, biases: Array) -> Array:
    return _case(xla.forked, x, scales, biases)


def _case(fork: Fork, x: Array, scales: Array, biases: Array) -> Array:
    """Both results in one, by the first of several scales and biases."""
    past, normed = fork(x, scales[0], biases[0], EPS)
    return past - normed
