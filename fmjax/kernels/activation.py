"""Which kernel computes the activation of an MLP, and the norm behind it where there is one: by the device that a
program is made for, and the dtype."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from importlib import import_module
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from jax.typing import DTypeLike
from jaxtyping import Array

from fmjax.kernels import pallas, trust, xla
from fmjax.sharding import make_mesh, parts

# auto: the fastest that the devices and the dtype allow
Kernel = pallas.Kernel


class Normed(NamedTuple):
    """A norm behind the activation, over so many of its numbers as it has scales; what is beyond them stays 0."""

    scale: Array  # [R]
    bias: Array | None  # [R]
    eps: float


# a name of xla.ACTIVATIONS, its products [... F] without their biases, these [F], some None, and the norm
Activate = Callable[[str, tuple[Array, ...], tuple[Array | None, ...], Normed | None], Array]

# Numbers of a row go in groups of so many: XLA pads what a product gives otherwise (EVA02-L's 2730 to 2736), and would
# copy it for a kernel. So its matrices are filled up with zeros, which there are 0.2 % of them
MULTIPLE = 8
WIDEST = 8192  # numbers of a row that a program of the kernel with a norm holds in registers
ROWS = 1027  # of the case that a kernel is tried on: beyond whole tiles, and several for a program
EPS = 1e-6  # there
# for what is told of a device: ViT-L's MLP and EVA02-L's
USUAL: tuple[dict[str, Any], ...] = (
    {"activation": "gelu", "width": 4096},
    {"activation": "swiglu", "width": 2730, "normed": True},
)
# what it is tried with: gradients of all of these are compared
INPUTS = {"swiglu": ("gates", "products", "biases")}
PLAIN_INPUTS = ("products", "biases")
NORM_INPUTS = ("scales",)  # and biases of the norm


def aligned(width: int) -> int:
    """The next width that no device pads."""
    return -(-width // MULTIPLE) * MULTIPLE


def chosen(
    kernel: Kernel,
    mesh: Mesh | None,
    *,
    dtype: DTypeLike,
    activation: str,
    width: int,
    normed: bool = False,
    images: int = 0,
) -> Activate | None:
    """The function that computes an activation in a dtype, in a program for a mesh; None: the formula's, by XLA.

    width: of the MLP. normed: whether a norm is behind the activation. images: in a batch; 0: any number that the mesh
    divides. Raises UsageError where a kernel is asked for by its name and cannot run there.
    """
    asked = {"dtype": dtype, "activation": activation, "width": width, "normed": normed}
    reason = partial(unfit, mesh, **asked, images=images)
    return activate(mesh) if pallas.taken(kernel, dtype, reason, flag="--activations") else None


def unfit(
    mesh: Mesh | None,
    *,
    dtype: DTypeLike,
    activation: str,
    width: int,
    normed: bool = False,
    images: int = 0,
) -> str:
    """Why the kernel cannot run on a mesh, or on all devices; "" where it can."""
    reason = pallas.unfit(mesh, dtype, images) or _unfit_width(mesh, width, normed=normed)
    reason = reason or lacking()
    return reason or pallas.found_wrong(_tried(activation, jnp.dtype(dtype), width, normed), mesh)


def _unfit_width(mesh: Mesh | None, width: int, *, normed: bool) -> str:
    """Why the kernel does not compute an MLP that is so wide; "" where it does."""
    if normed and width > WIDEST:
        return f"an MLP is {width} wide, and the kernel with its norm takes {WIDEST}"
    devices = parts(mesh)
    each = width // devices
    if devices > 1 and (normed or aligned(each) != each):
        # what goes over all of the hidden units, or puts some behind them, has to have them all
        lies = f"an MLP {width} wide lies on {devices} devices of mesh axis 'tensor'"
        return f"{lies}, and the kernel needs all of it"
    return ""


def told(device: Any, dtype: DTypeLike) -> str:
    """The kernels of activations in a dtype on a device, in words; tried there if they were not yet."""
    mesh = make_mesh(1, devices=[device])
    reasons = [unfit(mesh, dtype=dtype, **each) for each in USUAL]
    return pallas.told(next(filter(None, reasons), ""))


@cache
def lacking() -> str:
    """Why this jax makes no such kernel here; "" where it does."""
    return pallas.lacking(partial(_fast_case, "gelu", False), len(PLAIN_INPUTS))


def activate(mesh: Mesh | None = None) -> Activate:
    """The kernel for a mesh, or for one device; its language takes longer to import than a model does."""
    return import_module("fmjax.kernels.pallas_activation").over(mesh)


@cache
def _tried(activation: str, dtype: Any, width: int, normed: bool) -> trust.Kernel:
    # the same object each time: its functions are part of what a verdict is remembered by
    inputs = INPUTS.get(activation, PLAIN_INPUTS)
    behind = " and its norm" if normed else ""
    return trust.Kernel(
        f"the kernel of {activation}{behind}",
        partial(_fast_case, activation, normed),
        partial(_plain_case, activation, normed),
        (ROWS, width),
        str(dtype),
        inputs + NORM_INPUTS * normed,
    )


def _fast_case(activation: str, normed: bool, *inputs: Array) -> Array:
    return _case(activate(), activation, normed, inputs)


def _plain_case(activation: str, normed: bool, *inputs: Array) -> Array:
    return _case(plain, activation, normed, inputs)


def _case(activate: Activate, activation: str, normed: bool, inputs: tuple[Array, ...]) -> Array:
    y = activate(activation, *_parts(inputs, normed))
    return y[..., : inputs[0].shape[-1]]


def _parts(
    inputs: tuple[Array, ...], normed: bool
) -> tuple[tuple[Array, ...], tuple[Array, ...], Normed | None]:
    """Products, filled up as a block does it; for each a row of the next input as its bias; of the last the norm."""
    arrays, norm = inputs, None
    if normed:
        arrays, vectors = inputs[:-1], inputs[-1]
        norm = Normed(vectors[0], vectors[1], EPS)
    *products, biases = (filled(x, aligned(x.shape[-1])) for x in arrays)
    return tuple(products), tuple(biases[: len(products)]), norm


def filled(x: Array, width: int, axis: int = -1) -> Array:
    """With zeros behind, to a width."""
    lacking = [(0, 0)] * x.ndim
    lacking[axis] = (0, width - x.shape[axis])
    return jnp.pad(x, lacking) if width > x.shape[axis] else x


def plain(
    activation: str,
    products: tuple[Array, ...],
    biases: tuple[Array | None, ...],
    norm: Normed | None = None,
) -> Array:
    """What the kernel computes, by XLA."""
    y = xla.ACTIVATIONS[activation](*map(xla.biased, products, biases))
    if norm is None:
        return y
    normalised = xla.normalised(y[..., : norm.scale.shape[-1]], *norm).astype(y.dtype)
    return filled(normalised, y.shape[-1])
