"""A model's blocks in two stacks, and in one again."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fmjax.models.vit import ViT


def split_blocks(model: ViT, frozen: int) -> ViT:
    """The same function with its first `frozen` blocks in a stack of their own, which costs no gradient if left out
    of it."""
    if not 0 < frozen < model.spec.depth or model.frozen_blocks is not None:
        raise ValueError(f"frozen={frozen}: split once, between 1 and {model.spec.depth - 1}")
    out = jax.tree.map(lambda a: a, model)
    out.frozen_blocks = jax.tree.map(lambda a: a[:frozen], model.blocks)
    out.blocks = jax.tree.map(lambda a: a[frozen:], model.blocks)
    return out


def join_blocks(model: ViT) -> ViT:
    """Undoes `split_blocks`."""
    if model.frozen_blocks is None:
        return model
    out = jax.tree.map(lambda a: a, model)
    out.blocks = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), model.frozen_blocks, model.blocks)
    out.frozen_blocks = None
    return out
