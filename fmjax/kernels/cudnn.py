"""Attention by cuDNN's fused kernels, whose scores never leave the chip (arXiv:2205.14135), for any number of tokens.

`jax.nn.dot_product_attention` refuses to train it for an odd number of tokens, which every class token makes: its check
takes the empty array that stands for no bias for a bias (jax 0.7.2 to 0.12). cuDNN itself has no such bound, so jax's
two primitives are bound here without that check. They are private: where a version has others, `lacking` says so.
"""

from __future__ import annotations

import inspect
from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from fmjax.kernels.fused import fused, swapped

HOME = "jax._src.cudnn.fused_attention_stablehlo"
OPERANDS = ("query", "key", "value", "bias", "q_seqlen", "kv_seqlen", "q_offsets", "kv_offsets")
PAGES = ("page_table_k", "page_table_v")
# of the rule that binds them, and not of the primitives; the arrays of a function of scores, of which there is none
OTHERS = ("cudnn_version", "return_residual", "score_mod_args")
EMPTY = len(OPERANDS) - 3 + len(PAGES)  # operands that are not given


class Primitives(NamedTuple):
    """jax's primitives, and what they are bound with but for the scale."""

    forward: Any
    backward: Any
    settings: dict[str, Any]


@cache
def primitives() -> Primitives | None:
    """The primitives of this jax; None where it has none that are known here."""
    try:
        home: Any = import_module(HOME)
        settings = {
            "seed": 0,
            "dropout_rate": 0.0,
            "variadic_args": (False, False),  # no bias, and no gradient of one
            "mask_type": home.MaskType.NO_MASK,
            "layout": home.AttentionLayout.BTNH.value,
            "sliding_window_length": None,
            "score_mod": None,
        }
        asked = inspect.signature(home._dot_product_attention_fwd_rule).parameters
        forward = home._dot_product_attention_fwd_p_wrapper
        backward = home._dot_product_attention_bwd_p_wrapper
    except (ImportError, AttributeError):
        return None
    # a parameter more could change what is computed: it is not guessed
    if set(asked) - {*OPERANDS, *PAGES, *OTHERS, "scale", *settings}:
        return None
    return Primitives(
        forward, backward, {name: settings[name] for name in settings if name in asked}
    )


def lacking() -> str:
    """Why cuDNN's kernels cannot be asked for by this jax; "" where they can."""
    if primitives() is None:
        return f"jax {jax.__version__} has no primitives of cuDNN's attention that are known here"
    return ""


def _bound(q: Array, k: Array, v: Array, *, trained: bool) -> list[Array]:
    """The attention [B N L K], and where it is trained the logarithms of the sums of exponentials [B N L]."""
    found = _found()
    # tokens before heads, as the products that made q, k and v lie in memory: nothing is moved
    operands = [swapped(x) for x in (q, k, v)] + [jnp.zeros(0, q.dtype)] * EMPTY
    scale = q.shape[-1] ** -0.5
    y, *lse = found.forward.bind(*operands, scale=scale, is_training=trained, **found.settings)
    return [swapped(y), *lse]


def _gradients(
    q: Array, k: Array, v: Array, y: Array, lse: Array, gradient: Array
) -> tuple[Array, ...]:
    found = _found()
    empty = [jnp.zeros(0, q.dtype)] * EMPTY
    operands = [*map(swapped, (q, k, v)), *empty, lse, swapped(y), swapped(gradient)]
    grads = found.backward.bind(*operands, scale=q.shape[-1] ** -0.5, **found.settings)
    return tuple(map(swapped, grads))


def _found() -> Primitives:
    found = primitives()
    if found is None:
        raise NotImplementedError(lacking())
    return found


# of heads whose width is a multiple of 8, in bfloat16 or float16; XLA divides jax's primitives itself
attend = fused(_bound, _gradients)
