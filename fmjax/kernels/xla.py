"""Attention, norms and activations by XLA's own kernels: on every device, in every dtype, for every shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float

# the names of what attention that has a backward pass of its own needs there of the forward one, besides q, k and v
KEPT = ("attention", "attention_lse")


def attend(
    q: Float[Array, "B N L K"], k: Float[Array, "B N S K"], v: Float[Array, "B N S K"]
) -> Float[Array, "B N L K"]:
    """softmax(q k / sqrt(K)) v, the softmax in float32.

    Heads come before tokens: with batch axes in front, XLA's CPU products are three times as fast. In float32 the
    softmax is normalised after the product with v, which is smaller; in half precision that sum could overflow.
    """
    weights, total, _ = _weighted(q, k)
    return _averaged(weights, total, v)


def _weighted(q: Array, k: Array) -> tuple[Array, Array, Array]:
    """Weights of the softmax before they are normalised, their sum, and the greatest score."""
    # q is scaled, which is smaller than the logits; less their greatest, no exp overflows
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    logits = (_narrow if q.dtype == jnp.bfloat16 else _wide)(q, k)  # B N L S
    greatest = jax.lax.stop_gradient(logits.max(-1, keepdims=True))
    weights = jnp.exp(logits - greatest)
    return weights, weights.sum(-1, keepdims=True), greatest


def _averaged(weights: Array, total: Array, v: Array) -> Array:
    if v.dtype != jnp.float32:
        return jnp.einsum("bnls,bnsk->bnlk", (weights / total).astype(v.dtype), v)
    return jnp.einsum("bnls,bnsk->bnlk", weights, v) / total


def _wide(q: Array, k: Array) -> Array:
    return jnp.einsum("bnlk,bnsk->bnls", q, k, preferred_element_type=jnp.float32)


@jax.custom_vjp
def _narrow(q: Array, k: Array) -> Array:
    """The same of numbers in bfloat16. Its gradient is rounded as they are before it is multiplied, as in fused kernels
    (arXiv:2205.14135, alg. 4): autodiff's products of float32 take a GPU twice the time and the memory. float16 has no
    numbers as small as some of these gradients are, and learns less by it."""
    return _wide(q, k)


def _narrow_gradients(kept: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    q, k = kept
    gradient = gradient.astype(q.dtype)
    return jnp.einsum("bnls,bnsk->bnlk", gradient, k), jnp.einsum("bnls,bnlk->bnsk", gradient, q)


_narrow.defvjp(lambda q, k: (_wide(q, k), (q, k)), _narrow_gradients)


@jax.custom_vjp
def by_head(
    q: Float[Array, "B N L K"], k: Float[Array, "B N S K"], v: Float[Array, "B N S K"]
) -> Float[Array, "B N L K"]:
    """`attend`, one head of one image after the other in both passes: for a CPU and many tokens.

    Four passes go over the scores, and six on the way back. Those of one head stay in a core's cache, and those of all
    are fetched from memory each time.
    """
    return _head_after_head(attend, q, k, v)


def _head_after_head(function: Callable[..., Any], *arrays: Array) -> Any:
    """A function of arrays [1 1 L K], for arrays [B N L K]."""
    heads = [x.reshape(-1, 1, 1, *x.shape[2:]) for x in arrays]  # BN 1 1 L K
    found = jax.lax.map(lambda head: function(*head), heads)
    return jax.tree.map(lambda y: y.reshape(*arrays[0].shape[:2], *y.shape[3:]), found)


def _with_sums(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    """`attend`, and the logarithm of the sum of a token's weights."""
    weights, total, greatest = _weighted(q, k)
    return _averaged(weights, total, v), greatest + jnp.log(total)


def _by_head_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    y, lse = _head_after_head(_with_sums, q, k, v)
    y, lse = checkpoint_name(y, KEPT[0]), checkpoint_name(lse, KEPT[1])
    return y, (q, k, v, y, lse)


def _by_head_backward(kept: tuple[Array, ...], gradient: Array) -> tuple[Array, ...]:
    return _head_after_head(_attend_gradients, *kept, gradient)


def _attend_gradients(*given: Array) -> tuple[Array, ...]:
    """Of q, k and v, computed in float32. given: q, k, v, what `_with_sums` made of them, and the gradient of its first
    (arXiv:2205.14135, alg. 4)."""
    q, k, v, y, lse, gradient = (x.astype(jnp.float32) for x in given)
    scale = q.shape[-1] ** -0.5
    weights = jnp.exp(_wide(q * scale, k) - lse)  # B N L S
    of_weights = jnp.einsum("bnlk,bnsk->bnls", gradient, v)
    # the weights' mean of their gradients is that of y along y, which is smaller
    of_scores = weights * (of_weights - (gradient * y).sum(-1, keepdims=True))
    gradients = (
        jnp.einsum("bnls,bnsk->bnlk", of_scores, k) * scale,
        jnp.einsum("bnls,bnlk->bnsk", of_scores, q) * scale,
        jnp.einsum("bnls,bnlk->bnsk", weights, gradient),
    )
    return tuple(new.astype(x.dtype) for new, x in zip(gradients, given[:3], strict=True))


by_head.defvjp(_by_head_forward, _by_head_backward)


@jax.custom_vjp
def holding(x: Float[Array, "*B D"], constant: Float[Array, " D"]) -> Float[Array, "*B D"]:
    """x as it is, in each of whose rows there is a vector as a constant: its gradient is the sum of x's over rows."""
    return x


holding.defvjp(
    lambda x, constant: (x, constant),
    lambda constant, gradient: (gradient, _summed_rows(gradient).astype(constant.dtype)),
)


def _summed_rows(x: Float[Array, "*B D"]) -> Float[Array, " D"]:
    """Added up in float32."""
    return x.sum(range(x.ndim - 1), dtype=jnp.float32)


def forked(
    x: Float[Array, "*B D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"] | None,
    eps: float,
    constant: Float[Array, " D"] | None = None,
) -> tuple[Float[Array, "*B D"], Float[Array, "*B D"]]:
    """x as it is, for a residual sum, and normalised, for the branch beside it: so the gradients of both come back
    together. constant: see `holding`."""
    x = x if constant is None else holding(x, constant)
    return x, normalised(x, scale, bias, eps).astype(x.dtype)


def normalised(
    x: Float[Array, "*B D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None, eps: float
) -> Float[Array, "*B D"]:
    """Layer normalisation, or without a bias RMS normalisation, in float32."""
    # centred first: the mean of squares less the squared mean, which is faster, loses digits
    x32 = x.astype(jnp.float32)
    if bias is not None:
        x32 = x32 - x32.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + eps)
    y = x32 * inverse * scale.astype(jnp.float32)
    return y if bias is None else y + bias.astype(jnp.float32)


def biased(product: Float[Array, "*B F"], bias: Float[Array, " F"] | None) -> Float[Array, "*B F"]:
    """A product, and its bias in the same dtype."""
    if bias is None:
        return product
    if product.dtype.itemsize < 4:
        # the bias' gradient would be added up in half precision, which loses digits with each row: of the patches of
        # 32 images half of it. And in float16 a sum ends at 65,504
        product, bias = holding(product, bias), jax.lax.stop_gradient(bias)
    return product + bias.astype(product.dtype)


def scaled(product: Float[Array, "*B F"], scale: Float[Array, " F"]) -> Float[Array, "*B F"]:
    """A product times a factor for each of its numbers, in the same dtype."""
    # the factors' gradient too is added up
    wide = jnp.promote_types(product.dtype, jnp.float32)
    return (product.astype(wide) * scale.astype(wide)).astype(product.dtype)


def gelu(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """x Phi(x), in the erf form: torch's formula, and twice as fast on CPU as jax.nn.gelu's erfc."""
    # halved first: the order of these lines is that in which a gradient is summed
    half = 0.5 * x
    scaled = x * jnp.asarray(np.sqrt(0.5), x.dtype)
    return half * (1 + jax.lax.erf(scaled))


def gelu_tanh(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """The tanh approximation of gelu, of big_vision and of Hugging Face's SigLIP."""
    # the gradient has squares, of which float16 has none above 255
    wide = jnp.float32 if x.dtype == jnp.float16 else x.dtype
    return jax.nn.gelu(x.astype(wide), approximate=True).astype(x.dtype)


def quick_gelu(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """x sigmoid(1.702 x), of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


def swiglu(gate: Float[Array, "*B F"], up: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """silu(gate) up (arXiv:2002.05202)."""
    return jax.nn.silu(gate) * up


# of one product, or of two where the first is a gate
ACTIVATIONS: dict[str, Callable[..., Array]] = {
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "swiglu": swiglu,
}
