"""Where a kernel in Pallas can be in a program: on GPUs of NVIDIA, in half precision, by a jax that makes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.errors import UsageError, escaped
from fmjax.kernels import trust
from fmjax.kernels.devices import is_half, without_triton
from fmjax.sharding import batch_divisor, first_device

Kernel = Literal["auto", "xla", "pallas"]


def taken(kernel: Kernel, dtype: DTypeLike, unfit: Callable[[], str], *, flag: str) -> bool:
    """Whether a kernel is used that a flag leaves to the devices, or names; unfit: why it cannot be, "" where it can.

    Raises UsageError where it is asked for by its name and cannot run there.
    """
    # a model in float32 need not know of any device
    if kernel == "xla" or (kernel == "auto" and not is_half(dtype)):
        return False
    reason = unfit()
    if reason and kernel == "pallas":
        raise UsageError(f"{flag} pallas: {reason}; choose xla, or auto")
    return not reason


def unfit(mesh: Mesh | None, dtype: DTypeLike, images: int) -> str:
    """Why no such kernel can be in a program for a mesh, or for all devices; "" where one can."""
    return without_triton(first_device(mesh), dtype) or undivided(mesh, images)


def undivided(mesh: Mesh | None, images: int) -> str:
    """Why a kernel is not divided over the devices of a program for a mesh, or for all devices; "" where it can be.

    images: in a batch; 0 where any number is meant that a run may have.
    """
    # XLA cannot divide a kernel that it does not know: each device would be given all tokens. A mesh says which are its
    devices = jax.device_count() if mesh is None else batch_divisor(mesh)
    if mesh is None and devices > 1:
        return f"without a mesh the kernel is not divided over {devices} devices"
    return f"{images} images do not divide over {devices} devices" if images % devices else ""


def told(reason: str) -> str:
    """The kernel that computes what it can on a device, in words; reason: why it cannot."""
    return f"XLA's: {reason}" if reason else "kernels in Pallas"


def lacking(case: Callable[..., Array], arguments: int, shape: tuple[int, ...] = (2, 8)) -> str:
    """Why this jax makes no kernel here for a case of so many arguments of a shape; "" where it does."""
    # the language is to leave jax, and since 0.11 it asks for a GPU that is here before it makes a kernel for another
    small = [jax.ShapeDtypeStruct(shape, jnp.bfloat16)] * arguments
    try:
        jax.jit(case).trace(*small).lower(lowering_platforms=("cuda",))
    except Exception as error:  # whatever a version raises
        return f"jax {jax.__version__} makes no kernel in Pallas here ({escaped(str(error))})"
    return ""


def found_wrong(kernel: trust.Kernel, mesh: Mesh | None) -> str:
    """What is wrong with a kernel on the device of a mesh; "" where it agrees with the plain path."""
    kind = first_device(mesh).device_kind
    reason = trust.verdict(kernel, kind).reason
    return reason and f"on {kind!r} {reason}"
