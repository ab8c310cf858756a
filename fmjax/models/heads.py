"""What a task puts on top of the backbone."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.models.features import Features
from fmjax.models.linear import ZEROS, Dtype, Linear
from fmjax.specs import ClassifierInput, ViTSpec


def classifier_head(
    spec: ViTSpec,
    num_classes: int,
    classifier: ClassifierInput = "pool",
    *,
    rngs: nnx.Rngs,
    param_dtype: DTypeLike = jnp.float32,
) -> Linear:
    """A linear classifier over what `classifier_input` gives, computed in float32.

    It starts at zero, so that the first loss is log(num_classes). Raises UsageError where the model has no such token.
    """
    width = classifier_width(spec, classifier)
    return linear_head(width, num_classes, rngs=rngs, param_dtype=param_dtype)


def linear_head(
    inputs: int, outputs: int, *, rngs: nnx.Rngs, param_dtype: DTypeLike = jnp.float32
) -> Linear:
    """A linear layer that starts at zero, computed in float32 whatever the backbone computes in."""
    return Linear(
        inputs,
        outputs,
        bias=True,
        dtype=jnp.float32,
        param_dtype=param_dtype,
        rngs=rngs,
        init=ZEROS,
    )


def projection(
    spec: ViTSpec,
    *,
    dtype: Dtype,
    param_dtype: DTypeLike,
    rngs: nnx.Rngs,
) -> Linear | None:
    """The layer behind what is pooled; None for a model that has none."""
    if not spec.embed_dim:
        return None
    return Linear(
        spec.pool_dim,
        spec.embed_dim,
        bias=spec.proj_bias,
        dtype=dtype,
        param_dtype=param_dtype,
        rngs=rngs,
    )


def classifier_width(spec: ViTSpec, classifier: ClassifierInput) -> int:
    """How many numbers a classifier over that input sees. Raises UsageError where the model has no such token."""
    if classifier in ("cls", "cls_patches") and not spec.num_cls:
        lack = f"{spec.name} has no class token for classifier={classifier!r}"
        raise UsageError(f"{lack}; use 'pool' or 'patches'")
    return {"pool": spec.pool_dim, "cls_patches": 2 * spec.width}.get(classifier, spec.width)


def classifier_input(features: Features, classifier: ClassifierInput) -> Float[Array, "B I"]:
    """What a classifier sees of features whose `pooled` has no projection (`ViT.unprojected`).

    "pool": the pooled tokens; or, after the final norm, "cls": the class token, "patches": the mean of the patches,
    "cls_patches": both (DINOv2's linear probe).
    """
    # the patches as an image-wide mean, which registers and class tokens stay out of
    mean = features.patches.mean((1, 2))  # B D
    parts: dict[ClassifierInput, list[Any]] = {
        "pool": [features.pooled],
        "cls": [features.cls],
        "patches": [mean],
        "cls_patches": [features.cls, mean],
    }
    return jnp.concatenate(parts[classifier], -1)
