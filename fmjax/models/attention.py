"""What the class token looks at."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.models.layers import Attention, AttentionPool, split_heads
from fmjax.models.rope import rotate
from fmjax.models.stack import between
from fmjax.models.vit import ViT


def class_attention(
    model: ViT, images: Float[Array, "B H W C"]
) -> tuple[Float[Array, "B N L"], Float[Array, "B N h w"]]:
    """How much each head of the last block attends from the class token to every token, and to the patches alone; of a
    model that pools by attention, how much the heads of its pool do (arXiv:2104.14294 fig. 1).

    A row over all tokens sums to 1. Raises UsageError for a model that has neither.
    """
    if not has_class_attention(model):
        raise UsageError(
            f"{model.spec.name} has no class token and no attention pool; it is the mean of its patches"
        )
    x, grid, rope = model.embed(images)
    depth = model.spec.depth
    if model.pool is not None:
        seen = model.final_norm(model.run_blocks(x, rope))
        weights = _of_probe(model.pool, seen)
    else:
        x = model.run_blocks(x, rope, stop=depth - 1)
        stacks = [stack for stack in (model.frozen_blocks, model.blocks) if stack is not None]
        [(stack, _)] = between(stacks, depth - 1, depth)
        # a stack of one: its parameters without the axis of depth
        block: Any = jax.tree.map(lambda leaf: leaf[0], stack)
        seen = x if block.post_norm else block.norm1(x)
        weights = _of_first_token(block.attn, seen, rope)
    # tokens are told apart as features are, the heads in the place of the channels
    patches = model.features(rearrange(weights, "b n l -> b l n"), grid).patches
    return weights, rearrange(patches, "b h w n -> b n h w")


def has_class_attention(model: ViT) -> bool:
    """Whether a model has a token that stands for all of an image."""
    return model.pool is not None or model.spec.num_cls > 0


def _of_first_token(
    attention: Attention, x: Float[Array, "B L D"], rope: Float[Array, "2 L K"] | None
) -> Float[Array, "B N L"]:
    q, k = (split_heads(layer(x), attention.num_heads) for layer in (attention.q, attention.k))
    if rope is not None:
        q, k = rotate(q, rope, attention.pairs), rotate(k, rope, attention.pairs)
    return _weights(q[:, :, :1], k)


def _of_probe(pool: AttentionPool, x: Float[Array, "B L D"]) -> Float[Array, "B N L"]:
    probe = pool.probe[...].astype(x.dtype)
    probe = jnp.broadcast_to(probe, (x.shape[0], 1, x.shape[2]))
    q, k = split_heads(pool.q(probe), pool.num_heads), split_heads(pool.k(x), pool.num_heads)
    return _weights(q, k)


def _weights(q: Float[Array, "B N 1 K"], k: Float[Array, "B N L K"]) -> Float[Array, "B N L"]:
    # as `xla.attend` has it, which never forms them for all tokens
    q = q * jnp.asarray(q.shape[-1] ** -0.5, q.dtype)
    logits = jnp.einsum("bnqk,bnlk->bnql", q, k, preferred_element_type=jnp.float32)
    return jax.nn.softmax(logits, -1)[:, :, 0]
