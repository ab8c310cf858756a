"""What a task puts on top of the backbone."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmjax.specs import ClassifierInput, ViTSpec


def classifier_width(spec: ViTSpec, kind: ClassifierInput) -> int:
    """How many numbers a classifier over that input sees."""
    return spec.width * (2 if kind == "cls_patches" else 1)


def classifier_input(
    cls: Float[Array, "B D"], patches: Float[Array, "B h w D"], kind: ClassifierInput
) -> Float[Array, "B I"]:
    """The class token, the mean of the patches, or both, all after the final norm (DINOv2's linear probe: both)."""
    parts = {"cls": [cls], "patches": [patches.mean((1, 2))], "cls_patches": [cls, patches.mean((1, 2))]}
    return jnp.concatenate(parts[kind], -1)
