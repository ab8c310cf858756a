"""Which kernel normalises the tokens of a block: by the device that a program is made for, the dtype and the width."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.kernels import pallas, trust, xla
from fmjax.sharding import make_mesh

# auto: the fastest that the devices, the dtype and the width allow
Kernel = pallas.Kernel
# x [... D], scale [D], bias [D] or None, and epsilon -> x as it is, and normalised. A vector [D] may follow that is in
# each row of x as a constant: it is given its gradient
Fork = Callable[..., tuple[Array, Array]]

WIDEST = 8192  # numbers of a row that a program holds in registers
WIDTH = 1024  # of ViT-L, for what is told of a device
ROWS = 67  # of the case that a kernel is tried on
EPS = 1e-6  # there
INPUTS = ("tokens", "scales", "biases", "constants")


def chosen(
    kernel: Kernel, mesh: Mesh | None, *, dtype: DTypeLike, width: int, images: int = 0
) -> Fork | None:
    """The function that normalises in a dtype, in a program for a mesh; None: the norm's own, by XLA.

    images: in a batch; 0: any number that the mesh divides. Raises UsageError where a kernel is asked for by its name
    and cannot run there.
    """
    reason = partial(unfit, mesh, dtype=dtype, width=width, images=images)
    return fork(mesh) if pallas.taken(kernel, dtype, reason, flag="--norms") else None


def unfit(mesh: Mesh | None, *, dtype: DTypeLike, width: int, images: int = 0) -> str:
    """Why the kernel cannot run on a mesh, or on all devices; "" where it can."""
    reason = pallas.unfit(mesh, dtype, images)
    if not reason and width > WIDEST:
        reason = f"tokens are {width} wide, and the kernel takes {WIDEST}"
    return reason or lacking() or pallas.found_wrong(_tried(dtype, width), mesh)


def told(device: Any, dtype: DTypeLike) -> str:
    """The kernel of norms in a dtype on a device, in words; tried there if it was not yet."""
    return pallas.told(unfit(make_mesh(1, devices=[device]), dtype=dtype, width=WIDTH))


@cache
def lacking() -> str:
    """Why this jax makes no such kernel here; "" where it does."""
    return pallas.lacking(_fast_case, len(INPUTS))


def fork(mesh: Mesh | None = None) -> Fork:
    """The kernel for a mesh, or for one device; its language takes longer to import than a model does."""
    return import_module("fmjax.kernels.pallas_norm").over(mesh)


def _tried(dtype: DTypeLike, width: int) -> trust.Kernel:
    return trust.Kernel(
        "the kernel of norms",
        _fast_case,
        _plain_case,
        (ROWS, width),
        str(jnp.dtype(dtype)),
        INPUTS,
    )


def _fast_case(x: Array, scales: Array, biases: Array, constants: Array) -> Array:
    return _case(fork(), x, scales, biases, constants)


def _plain_case(x: Array, scales: Array, biases: Array, constants: Array) -> Array:
    return _case(xla.forked, x, scales, biases, constants)


def _case(fork: Fork, x: Array, scales: Array, biases: Array, constants: Array) -> Array:
    """All results in one, by the first of several vectors: of a norm in front of a branch, and of one that nothing goes
    past."""
    past, normed = fork(x, scales[0], biases[0], EPS, constants[0])
    _, alone = fork(x, scales[1], biases[1], EPS, constants[0])
    return past - normed + alone
