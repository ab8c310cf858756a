"""Activations and their slopes in float32, by one exponential and one reciprocal each, for kernels in Pallas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton
from jaxtyping import Array

LOG2E = math.log2(math.e)
DENSITY = 1 / math.sqrt(2 * math.pi)  # of a normal variable, at 0
# erfc(z) = (a1 t + ... + a5 t^5) exp(-z^2) with t = 1 / (1 + p z), to 1.5e-7 for all z >= 0, about what
# float32 rounds 1 + erf by (Abramowitz and Stegun, 7.1.26)
ERFC = (0.254829592, -0.284496736, 1.421413741, -1.453152027, 1.061405429)
ERFC_P = 0.3275911
# the tanh form of gelu is x sigmoid(2 sqrt(2 / pi) (x + 0.044715 x^3)) (arXiv:1606.08415)
TANH, CUBE = 2 * math.sqrt(2 / math.pi), 0.044715
QUICK = 1.702


class Fast(NamedTuple):
    """The two functions that take a GPU more than an instruction."""

    exp2: Callable[[Array], Array]
    inverse: Callable[[Array], Array]  # 1 / x


class Formula(NamedTuple):
    """Of one product, or of a gate and a product."""

    value: Callable[..., Array]
    slopes: Callable[..., tuple[Array, ...]]  # the derivative by each


def _instruction(code: str) -> Callable[[Array], Array]:
    """A single instruction of the device, with results below 2^-126 as 0: a division is eight."""

    def applied(x: Array) -> Array:
        [result] = triton.elementwise_inline_asm(
            f"{code}.approx.ftz.f32 $0, $1;",
            args=[x],
            constraints="=f,f",
            pack=1,
            result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, jnp.float32)],
        )
        return result

    return applied


TRITON = Fast(_instruction("ex2"), _instruction("rcp"))
PLAIN = Fast(jnp.exp2, lambda x: 1 / x)


def fast(*, interpret: bool) -> Fast:
    """A kernel's: an instruction each, or where XLA computes it step by step what any device has."""
    return PLAIN if interpret else TRITON


def _tail(fast: Fast, x: Array) -> tuple[Array, Array]:
    """The share of normal variables beyond |x|, and exp(-x^2 / 2), which it is made of and is the slope's."""
    t = fast.inverse(1 + ERFC_P / math.sqrt(2) * jnp.abs(x))
    density = fast.exp2(x * x * (-0.5 * LOG2E))
    total = 0.0
    for factor in reversed(ERFC):
        total = (total + 0.5 * factor) * t
    return total * density, density


def _gelu(fast: Fast, x: Array) -> Array:
    tail, _ = _tail(fast, x)
    return jnp.maximum(x, 0.0) - jnp.abs(x) * tail


def _gelu_slope(fast: Fast, x: Array) -> tuple[Array]:
    tail, density = _tail(fast, x)
    return (jnp.where(x >= 0, 1 - tail, tail) + x * density * DENSITY,)


def _sigmoid(fast: Fast, x: Array) -> Array:
    # of numbers far below 0 the exponential is infinite and its inverse 0
    return fast.inverse(1 + fast.exp2(x * -LOG2E))


def _gelu_tanh(fast: Fast, x: Array) -> Array:
    return x * _sigmoid(fast, TANH * x * (1 + CUBE * x * x))


def _gelu_tanh_slope(fast: Fast, x: Array) -> tuple[Array]:
    share = _sigmoid(fast, TANH * x * (1 + CUBE * x * x))
    return (share + x * share * (1 - share) * TANH * (1 + 3 * CUBE * x * x),)


def _quick_gelu(fast: Fast, x: Array) -> Array:
    return x * _sigmoid(fast, QUICK * x)


def _quick_gelu_slope(fast: Fast, x: Array) -> tuple[Array]:
    share = _sigmoid(fast, QUICK * x)
    return (share + QUICK * x * share * (1 - share),)


def _swiglu(fast: Fast, gate: Array, up: Array) -> Array:
    return gate * _sigmoid(fast, gate) * up


def _swiglu_slopes(fast: Fast, gate: Array, up: Array) -> tuple[Array, Array]:
    share = _sigmoid(fast, gate)
    return up * (share + gate * share * (1 - share)), gate * share


# by the names of xla.ACTIVATIONS
FORMULAS = {
    "gelu": Formula(_gelu, _gelu_slope),
    "gelu_tanh": Formula(_gelu_tanh, _gelu_tanh_slope),
    "quick_gelu": Formula(_quick_gelu, _quick_gelu_slope),
    "swiglu": Formula(_swiglu, _swiglu_slopes),
}
