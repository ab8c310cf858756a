"""Which kernel computes the activation of an MLP: by the device that a program is made for, and the dtype."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.kernels import single, trust, xla

# auto: the fastest that the devices and the dtype allow
Kernel = single.Kernel
# a name of xla.ACTIVATIONS, its products [... F] without their biases, and these [F], some None -> [... F]
Activate = Callable[[str, tuple[Array, ...], tuple[Array | None, ...]], Array]

# Numbers of a row go in groups of so many: XLA pads what a product gives otherwise (EVA02-L's 2730 to 2736), and would
# copy it for a kernel, which an H100 loses more by than it gains (a forward pass predicted 61.3 ms and not 51.7)
MULTIPLE = 8
ROWS = 1027  # of the case that a kernel is tried on: beyond whole tiles, and several for a program
# what it is tried with: gradients of all of these are compared
INPUTS = {"swiglu": ("gates", "products", "biases")}
PLAIN_INPUTS = ("products", "biases")


def chosen(
    kernel: Kernel, mesh: Mesh | None, *, dtype: DTypeLike, activation: str, width: int
) -> Activate | None:
    """The function that computes an activation in a dtype, in a program for a mesh; None: the formula's, by XLA.

    Raises UsageError where a kernel is asked for by its name and cannot run there.
    """
    reason = partial(unfit, mesh, dtype=dtype, activation=activation, width=width)
    return activate() if single.taken(kernel, dtype, reason, flag="--activations") else None


def unfit(mesh: Mesh | None, *, dtype: DTypeLike, activation: str, width: int) -> str:
    """Why the kernel cannot run on a mesh, or on all devices; "" where it can."""
    reason = single.unfit(mesh, dtype)
    if not reason and width % MULTIPLE:
        reason = f"an MLP is {width} wide, and the kernel takes multiples of {MULTIPLE}"
    reason = reason or lacking()
    return reason or single.found_wrong(_tried(activation, jnp.dtype(dtype), width), mesh)


@cache
def lacking() -> str:
    """Why this jax makes no such kernel here; "" where it does."""
    return single.lacking(partial(_fast_case, "gelu"), len(PLAIN_INPUTS))


def activate() -> Activate:
    """The kernel, whose language takes longer to import than a model does."""
    return import_module("fmjax.kernels.pallas_activation").activated


@cache
def _tried(activation: str, dtype: Any, width: int) -> trust.Kernel:
    # the same object each time: its functions are part of what a verdict is remembered by
    return trust.Kernel(
        f"the kernel of {activation}",
        partial(_fast_case, activation),
        partial(_plain_case, activation),
        (ROWS, width),
        str(dtype),
        INPUTS.get(activation, PLAIN_INPUTS),
    )


def _fast_case(activation: str, *inputs: Array) -> Array:
    return activate()(activation, *_parts(inputs))


def _plain_case(activation: str, *inputs: Array) -> Array:
    return plain(activation, *_parts(inputs))


def _parts(inputs: tuple[Array, ...]) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
    """Products, and for each a row of the last input as its bias."""
    *products, biases = inputs
    return tuple(products), tuple(biases[: len(products)])


def plain(activation: str, products: tuple[Array, ...], biases: tuple[Array | None, ...]) -> Array:
    """What the kernel computes, by XLA."""
    biased = map(_biased, products, biases)
    return xla.ACTIVATIONS[activation](*biased)


def _biased(product: Array, bias: Array | None) -> Array:
    return product if bias is None else product + bias.astype(product.dtype)
