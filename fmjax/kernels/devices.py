"""What kernels ask of a device."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.typing import DTypeLike

HALVES = tuple(map(jnp.dtype, (jnp.bfloat16, jnp.float16)))
LEAST = 8.0  # compute capability that Triton is tried on here


def compute_capability(device: Any) -> float | None:
    """Of a GPU of NVIDIA, as 9.0; None of any other device."""
    # other makers' GPUs have names in its place
    told = str(getattr(device, "compute_capability", ""))
    return float(told) if told.replace(".", "").isdigit() else None


def is_half(dtype: DTypeLike) -> bool:
    return jnp.dtype(dtype) in HALVES


def without_triton(device: Any, dtype: DTypeLike) -> str:
    """Why no kernel in Pallas for Triton can run on a device in a dtype; "" where one can."""
    kind, capability = device.device_kind, compute_capability(device)
    if capability is None or capability < LEAST:
        return f"the kernel is for GPUs of NVIDIA of compute capability 8.0, and not for {kind!r}"
    if not is_half(dtype):
        return f"the kernel is for bfloat16 and float16, and not for {jnp.dtype(dtype)}"
    return ""
