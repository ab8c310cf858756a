"""Images -> what a set of weights was trained to see: decode, resize, crop, normalise.

On the host everything stays uint8; `normalise` runs where the model runs. Resizing is Pillow's, which all the originals
evaluate with (torchvision transforms.Resize on PIL images).
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8
from PIL import Image, ImageOps

from fmjax.errors import DataError, UsageError
from fmjax.models.vit import ViT, check_image_size
from fmjax.specs import Weights, get_spec, get_weights, list_models

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
MAX_PIXELS = 200_000_000
Picture = str | Path | bytes | Image.Image | np.ndarray


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How images are brought to the network. Sizes are (height, width) in pixels; mean and std are for values in [0,
    1]."""

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    crop_pct: float = 1.0


def preprocess_config(
    name_or_model: str | Weights | ViT, image_size: int | tuple[int, int] | None = None
) -> PreprocessConfig:
    """The preprocessing of some published weights; for an architecture or a model, that of its family.

    image_size: another size (height, width). Raises UsageError where it is no multiple of the patch.
    """
    weights = name_or_model if isinstance(name_or_model, Weights) else _weights(name_or_model)
    config = _config(weights)
    if (
        isinstance(name_or_model, ViT)
        and image_size is None
        and name_or_model.spec.grid != get_spec(weights.model).grid
    ):
        image_size = name_or_model.spec.image_size
    if image_size is None:
        return config
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size)
    check_image_size(size, get_spec(weights.model))
    return replace(config, image_size=size)


def _weights(name_or_model: str | ViT) -> Weights:
    spec = name_or_model.spec if isinstance(name_or_model, ViT) else get_spec(name_or_model)
    if spec.weights:
        return get_weights(spec.weights)
    rows = [get_weights(n) for n in list_models(f"{spec.name}.*", pretrained=True)]
    if not rows:
        raise UsageError(f"{spec.name} has no published weights, so no preprocessing; pass a PreprocessConfig")
    if len({_config(row) for row in rows}) > 1:
        names = ", ".join(w.name for w in rows[:3])
        raise UsageError(f"the weights of {spec.name} differ in their preprocessing; name one of {names}, ...")
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


def preprocess(images: Picture | Iterable[Picture], config: PreprocessConfig) -> Float[Array, "B H W C"]:
    """Normalised float32 images, ready for a model, out of paths, file contents, PIL images or uint8 arrays [H W 3]."""
    single = isinstance(images, (str, Path, bytes, Image.Image)) or (
        isinstance(images, np.ndarray) and images.ndim == 3
    )
    pictures: Any = [images] if single else images
    return normalise(jnp.asarray(np.stack([resize(decode(p), config) for p in pictures])), config)


def normalise(images: UInt8[Array, "*B H W C"], config: PreprocessConfig) -> Float[Array, "*B H W C"]:
    """uint8 -> float32, (x / 255 - mean) / std."""
    scale = 1 / (255 * np.asarray(config.std, np.float64))
    shift = -np.asarray(config.mean, np.float64) / np.asarray(config.std, np.float64)
    return images.astype(jnp.float32) * jnp.asarray(scale, jnp.float32) + jnp.asarray(shift, jnp.float32)


def decode(picture: Picture) -> Image.Image:
    """An upright RGB image: EXIF rotation applied, 16-bit and float values scaled, transparency over white.

    Raises DataError, naming the file, for what is not a readable image.
    """
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    name = "image bytes" if isinstance(picture, bytes) else str(picture)
    try:
        with Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{name}: {image.width} x {image.height} pixels, more than {MAX_PIXELS:,}; make it smaller"
                )
            return to_rgb(image)
    except DataError:
        raise
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise DataError(f"{name} is not a readable image: {error}") from error


def to_rgb(image: Image.Image) -> Image.Image:
    """RGB by explicit rules, where Pillow's own conversion would clip 16-bit values and turn transparency black."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        return Image.fromarray(_scaled(np.asarray(image, np.float64), image.mode)).convert("RGB")
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", rgba.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, rgba).convert("RGB")
    return image.convert("RGB")


def _scaled(values: np.ndarray, mode: str) -> np.ndarray:
    high = 65535.0 if mode.startswith("I") else 1.0 if values.max() <= 1 else 255.0
    return np.round(np.clip(values / high, 0, 1) * 255).astype(np.uint8)


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3)):
        raise DataError(f"an array of {array.dtype} {array.shape} is no image; pass uint8 [height, width, 3]")
    return Image.fromarray(array.squeeze() if array.ndim == 3 and array.shape[2] == 1 else array).convert("RGB")


def resize(image: Image.Image, config: PreprocessConfig) -> UInt8[np.ndarray, "H W C"]:
    """The evaluation transform: resize (the shorter side, or both), then crop the centre."""
    height, width = config.image_size
    method = RESAMPLING[config.interpolation]
    if config.resize_mode == "squash":
        target = (int(width / config.crop_pct), int(height / config.crop_pct))
        return _centre(image.resize(target, method), height, width)
    target = _covering(image.size, (int(width / config.crop_pct), int(height / config.crop_pct)))
    return _centre(image.resize(target, method) if target != image.size else image, height, width)


def _covering(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int]:
    """(width, height) with the image's own shape that covers the wanted size; rounding down as torchvision does."""
    width, height = size
    if width * wanted[1] <= height * wanted[0]:
        return wanted[0], int(wanted[0] * height / width)
    return int(wanted[1] * width / height), wanted[1]


def _centre(image: Image.Image, height: int, width: int) -> np.ndarray:
    left, top = round((image.width - width) / 2.0), round((image.height - height) / 2.0)
    return np.asarray(image.crop((left, top, left + width, top + height)))
