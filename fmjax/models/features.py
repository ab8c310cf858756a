"""What a backbone says of a batch of images."""

from __future__ import annotations

import typing
from dataclasses import dataclass

import jax
from jaxtyping import Array, Float


@typing.no_type_check
@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Features:
    """What a backbone says of a batch of images. Everything is after the final norm; what a model has not is None."""

    # the original's image embedding: projected for CLIP, the class token for DINOv2
    pooled: Float[Array, "B E"] | None
    cls: Float[Array, "B D"] | None
    registers: Float[Array, "B R D"] | None
    patches: Float[Array, "B h w D"]
    # all class tokens, the first one too, where there are several
    summary: Float[Array, "B S D"] | None = None
    logits: Float[Array, "B K"] | None = None
