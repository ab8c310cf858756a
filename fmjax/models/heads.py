"""What a task puts on top of the backbone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.specs import ClassifierInput, ViTSpec


def classifier_width(spec: ViTSpec, kind: ClassifierInput) -> int:
    """How many numbers a classifier over that input sees. Raises UsageError where the model has no such token."""
    if kind in ("cls", "cls_patches") and not spec.num_cls:
        raise UsageError(f"{spec.name} has no class token for classifier={kind!r}; use 'pool' or 'patches'")
    return {"pool": spec.pool_dim, "cls_patches": 2 * spec.width}.get(kind, spec.width)


def classifier_input(pool: Float[Array, "B P"], features: Any, kind: ClassifierInput) -> Float[Array, "B I"]:
    """What a classifier sees: the pooled tokens before any projection; or, after the final norm, the class token, the
    mean of the patches, or both (DINOv2's linear probe: both)."""
    if kind == "pool":
        return pool
    parts = {"cls": ("cls",), "patches": ("patches",), "cls_patches": ("cls", "patches")}[kind]
    found = {"cls": features.cls, "patches": features.patches.mean((1, 2))}
    return jnp.concatenate([found[part] for part in parts], -1)
