"""Products of numbers in FP8, forward and backward (arXiv:2209.05433): e4m3 forward, and e5m2 for gradients, as it
reaches further. An array is divided by a factor of its own, so that its greatest number is the greatest of the type."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array

from fmjax.kernels import xla
from fmjax.models.linear import PRODUCT, Linear

# known: the factor is one from earlier steps, which costs no pass over the array; here any number stands for it
Factors = Literal["own", "known"]
VALUES, GRADIENTS = jnp.float8_e4m3fn, jnp.float8_e5m2
KNOWN = 4.0  # the greatest number that a known factor is for


def cast(x: Array, dtype: Any, factors: Factors) -> tuple[Array, Array]:
    """x over a factor, in FP8, and the factor."""
    greatest = float(jnp.finfo(dtype).max)
    most = jnp.abs(x).max().astype(jnp.float32) if factors == "own" else jnp.float32(KNOWN)
    factor = jnp.where(most > 0, most / greatest, 1.0)
    scaled = x.astype(jnp.float32) / factor
    return jnp.clip(scaled, -greatest, greatest).astype(dtype), factor


def wide(x: Array, factor: Array, dtype: Any) -> Array:
    """What XLA recognises in front of a product as FP8 with a factor, and computes so."""
    return x.astype(dtype) * factor.astype(dtype)


@cache
def product(factors: Factors) -> Callable[[Array, Array], Array]:
    """x [*B I] and a kernel [I O] -> [*B O], whose three products are in FP8."""

    @jax.custom_vjp
    def computed(x: Array, kernel: Array) -> Array:
        return forward(x, kernel)[0]

    def forward(x: Array, kernel: Array) -> tuple[Array, Any]:
        kept = cast(x, VALUES, factors), cast(kernel, VALUES, factors)
        left, right = (wide(*each, x.dtype) for each in kept)
        return left @ right, kept

    def backward(kept: Any, gradient: Array) -> tuple[Array, Array]:
        behind = wide(*cast(gradient, GRADIENTS, factors), gradient.dtype)
        x, kernel = (wide(*each, gradient.dtype) for each in kept)
        rows = tuple(range(x.ndim - 1))
        of_x = jax.lax.dot_general(behind, kernel, (((x.ndim - 1,), (1,)), ((), ())))
        return of_x, jax.lax.dot_general(x, behind, ((rows, rows), ((), ())))

    computed.defvjp(forward, backward)
    return computed


def output(
    layer: Linear, x: Array, kernel: Array, bias: Array | None, *, factors: Factors
) -> Array:
    """In the place of `Linear._output`."""
    x = x.astype(layer.dtype or x.dtype)
    y = xla.biased(product(factors)(x, kernel.astype(x.dtype)), bias)
    return checkpoint_name(y, PRODUCT)
