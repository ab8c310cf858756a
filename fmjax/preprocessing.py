"""Images -> what a set of weights was trained to see: decode, resize, crop, normalise.

On the host everything stays uint8, and needs no jax (fmjax/data/images.py, pixels.py, resizing.py); `normalise` runs
where the model runs.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image

from fmjax.data.images import MAX_PIXELS, Picture, decode, read
from fmjax.data.pixels import to_rgb
from fmjax.data.resizing import RESAMPLING, resize
from fmjax.errors import UsageError
from fmjax.models.vit import ViT
from fmjax.names import get_spec, get_weights, weights_of
from fmjax.specs import PreprocessConfig, ViTSpec, Weights, check_image_size
from fmjax.weights.publisher import weights_of_publisher

__all__ = [
    "MAX_PIXELS",
    "RESAMPLING",
    "Picture",
    "PreprocessConfig",
    "decode",
    "normalise",
    "preprocess",
    "preprocess_config",
    "resize",
    "to_rgb",
]


def preprocess_config(
    name_or_model: str | Weights | ViTSpec | ViT, image_size: int | tuple[int, int] | None = None
) -> PreprocessConfig:
    """The preprocessing of some published weights, as their authors evaluate them; for an architecture, that of its
    family; for a model (or its spec) that was loaded from a file, as the publisher of that file does.

    image_size: another size (height, width). Raises UsageError where it is no multiple of the patch.
    """
    if isinstance(name_or_model, Weights):
        weights = name_or_model
    elif isinstance(name_or_model, ViT) and name_or_model.facts is not None:
        # a run's model is shown what it was trained on, whatever its weights' row says by now
        return _of_size(name_or_model.facts.images, name_or_model.spec, image_size)
    else:
        spec = _spec(name_or_model)
        weights = _weights(spec)
        # a model, unlike a name, can have been resized: it wants the images that it was resized for. Its table's own
        # size is no hint otherwise: DINOv2's is for 518 pixels, and evaluation feeds it 224
        was_resized = spec.grid != get_spec(weights.model).grid
        if image_size is None and was_resized and not isinstance(name_or_model, str):
            image_size = spec.image_size
    return _of_size(_config(weights), get_spec(weights.model), image_size)


def _of_size(
    config: PreprocessConfig, spec: ViTSpec, image_size: int | tuple[int, int] | None
) -> PreprocessConfig:
    if image_size is None:
        return config
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    check_image_size(size, spec)
    return replace(config, image_size=size)


def _spec(name_or_model: str | ViTSpec | ViT) -> ViTSpec:
    if isinstance(name_or_model, ViTSpec):
        return name_or_model
    return get_spec(name_or_model) if isinstance(name_or_model, str) else name_or_model.spec


def _weights(spec: ViTSpec) -> Weights:
    """The row that a spec was asked for with, as its publisher preprocesses; else the one that all rows agree with."""
    if spec.weights:
        return weights_of_publisher(get_weights(spec.weights), spec.publisher)
    rows = [weights_of_publisher(row, spec.publisher) for row in weights_of(spec.name)]
    if not rows:
        lack = f"{spec.name} has no published weights, so no preprocessing"
        raise UsageError(f"{lack}; pass a PreprocessConfig")
    if len({_config(row) for row in rows}) > 1:
        names = ", ".join(row.name for row in rows[:3])
        question = f"the weights of {spec.name} differ in their preprocessing"
        raise UsageError(f"{question}; name one of {names}, ...")
    return rows[0]


def _config(weights: Weights) -> PreprocessConfig:
    return PreprocessConfig(
        image_size=weights.image_size,
        mean=weights.mean,
        std=weights.std,
        interpolation=weights.interpolation,
        resize_mode=weights.resize_mode,
        crop_pct=weights.crop_pct,
    )


def preprocess(
    images: Picture | Iterable[Picture], config: PreprocessConfig, *, max_pixels: int = MAX_PIXELS
) -> Float[Array, "B H W C"]:
    """Normalised float32 images, ready for a model, out of paths, file contents, PIL images or uint8 arrays [H W 3].

    Raises DataError, naming the picture and the reason, for what cannot be read or has over max_pixels.
    """
    single = isinstance(images, (str, Path, bytes, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    )
    pictures: Any = [images] if single else images
    return normalise(
        jnp.asarray(np.stack([resize(read(p, max_pixels=max_pixels), config) for p in pictures])),
        config,
    )


def normalise(
    images: UInt8[Array, "*B H W C"],
    config: PreprocessConfig,
) -> Float[Array, "*B H W C"]:
    """uint8 -> float32, (x / 255 - mean) / std."""
    # as one product and one sum, their constants in float64
    mean, std = np.asarray(config.mean, np.float64), np.asarray(config.std, np.float64)
    scale = jnp.asarray(1 / (255 * std), jnp.float32)
    shift = jnp.asarray(-mean / std, jnp.float32)
    return images.astype(jnp.float32) * scale + shift
