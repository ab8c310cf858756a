"""Which kernel computes attention: by the device that a program is made for, the dtype and the shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.errors import UsageError
from fmjax.kernels import cudnn, trust, xla
from fmjax.sharding import first_device

# auto: the fastest that the device, the dtype and the shape allow
Kernel = Literal["auto", "xla", "cudnn"]
Attend = Callable[[Array, Array, Array], Array]  # q, k and v [B N L K] -> [B N L K]

KERNELS: dict[str, Attend] = {"xla": xla.attend, "cudnn": cudnn.attend}
HALVES = tuple(map(jnp.dtype, (jnp.bfloat16, jnp.float16)))
# Least compute capability -> the widest head of cuDNN's kernels, both passes (docs.nvidia.com/cudnn, Attention)
WIDEST = ((9.0, 256), (8.0, 128))
# tokens from which on the scores of all heads are too many for a CPU's cache
MANY = 500
# of the case that a kernel is tried on: odd, and some beyond a tile of 64
TOKENS = 67


def chosen(kernel: Kernel, device: Any, *, dtype: DTypeLike, head_dim: int) -> Attend:
    """The function that computes attention in a dtype for heads so wide, in a program for a device, or None: the first.

    Raises UsageError where a kernel is asked for by its name and cannot run there.
    """
    # a model in float32 need not know of any device
    if kernel == "xla" or (kernel == "auto" and not _is_half(dtype)):
        return KERNELS["xla"]
    reason = unfit(device or first_device(), dtype=dtype, head_dim=head_dim)
    if reason and kernel == "cudnn":
        raise UsageError(f"--attention cudnn: {reason}; choose xla, or auto")
    return KERNELS["xla" if reason else "cudnn"]


def of_many(attend: Attend, device: Any, *, tokens: int) -> Attend:
    """A chosen function, or where one CPU has so many tokens what computes the same head after head. device: that of
    the program, or None: the first."""
    # of few tokens no program has to know of any device
    if attend is not xla.attend or tokens < MANY:
        return attend
    return xla.by_head if (device or first_device()).platform == "cpu" else attend


def unfit(device: Any, *, dtype: DTypeLike, head_dim: int) -> str:
    """Why cuDNN's kernels cannot run on a device; "" where they can."""
    # what is known of every device first: what has to be tried takes seconds
    kind, capability = device.device_kind, compute_capability(device)
    if capability is None:
        return f"cuDNN runs on GPUs of NVIDIA, and not on {kind!r}"
    widest = next((width for least, width in WIDEST if capability >= least), 0)
    if not widest:
        return f"cuDNN's attention needs compute capability 8.0, and {kind!r} has {capability}"
    if not _is_half(dtype):
        return f"cuDNN's attention is in bfloat16 and float16, and not in {jnp.dtype(dtype)}"
    if head_dim % 8 or head_dim > widest:
        return f"heads are {head_dim} wide, and cuDNN takes multiples of 8 up to {widest}"
    return cudnn.lacking() or _found_wrong(dtype, head_dim, kind)


def _found_wrong(dtype: DTypeLike, head_dim: int, device_kind: str) -> str:
    shape = (2, 2, TOKENS, head_dim)
    name = str(jnp.dtype(dtype))
    kernel = trust.Kernel("cuDNN's attention", KERNELS["cudnn"], KERNELS["xla"], shape, name)
    reason = trust.verdict(kernel, device_kind).reason
    return reason and f"on {device_kind!r} {reason}"


def _is_half(dtype: DTypeLike) -> bool:
    return jnp.dtype(dtype) in HALVES


def told(device: Any, dtype: DTypeLike) -> str:
    """The kernel that computes attention in a dtype on a device, in words; tried there if it was not yet."""
    # heads of most towers are so wide
    reason = unfit(device, dtype=dtype, head_dim=64)
    return f"XLA's products: {reason}" if reason else "cuDNN's kernels"


def compute_capability(device: Any) -> float | None:
    """Of a GPU of NVIDIA, as 9.0; None of any other device."""
    # other makers' GPUs have names in its place
    told = str(getattr(device, "compute_capability", ""))
    return float(told) if told.replace(".", "").isdigit() else None
