"""Random changes of a picture, as pure functions of (picture, generator). Imports no jax.

A picture is uint8 [H W 3] of the size that the network is fed, or a PIL image of it inside RandAugment. What a change
leaves empty is of the mean colour. Colours and places are Pillow's, as in timm and torchvision.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageEnhance

from fmjax.config.augment import AugmentConfig
from fmjax.data.rand_augment import rand_augment
from fmjax.specs import PreprocessConfig

Pixels = UInt8[np.ndarray, "H W 3"]
Rng = np.random.Generator
# of random erasing, as timm has them: parts of the image's area, and height over width
ERASED_AREA = (0.02, 1 / 3)
ERASED_ASPECT = (0.3, 1 / 0.3)
TRIES = 10  # at a rectangle that fits


def augmented(
    picture: Pixels, config: AugmentConfig, rng: Rng, *, images: PreprocessConfig
) -> Pixels:
    """A picture turned, in other colours, with parts erased: all that keeps its size and knows no mask.

    images: whose mean and std say what is neutral. What is off draws nothing.
    """
    # timm's order: places and colours on the picture, and erasing on what the network would see
    if config.rotation:
        fill = mean_colour(images)
        picture = rotated(picture, rng, degrees=config.rotation, fill=fill)
    if any(config.color_jitter):
        picture = jittered(picture, rng, strengths=config.color_jitter)
    if config.rand_ops:
        image, fill = Image.fromarray(picture), mean_colour(images)
        picture = np.asarray(rand_augment(image, config, rng, fill=fill))
    if config.erase:
        picture = erased(picture, config, rng, images=images)
    return picture


def mean_colour(images: PreprocessConfig) -> tuple[int, int, int]:
    """The colour that is 0 once it is normalised, as nearly as bytes have it."""
    red, green, blue = (round(255 * part) for part in images.mean)
    return red, green, blue


def rotated(picture: Pixels, rng: Rng, *, degrees: float, fill: tuple[int, int, int]) -> Pixels:
    """A picture turned about its centre by an angle of -degrees to degrees, bilinear, of the same size."""
    angle = rng.uniform(-degrees, degrees)
    turned = Image.fromarray(picture).rotate(angle, Image.Resampling.BILINEAR, fillcolor=fill)
    return np.asarray(turned)


def jittered(picture: Pixels, rng: Rng, *, strengths: Sequence[float]) -> Pixels:
    """A picture in another brightness, contrast, saturation and hue, changed in a random order.

    strengths: of the four, as in torchvision's ColorJitter: a factor between 1 - x and 1 + x, and a shift of the hue by
    up to x of the circle, either way.
    """
    # all are drawn, so that one that is 0 does not change what the others do
    order, shifts = rng.permutation(len(COLOURS)), rng.uniform(-1, 1, len(COLOURS))
    image = Image.fromarray(picture)
    for number in order.tolist():
        if strengths[number]:
            image = COLOURS[number](image, float(shifts[number]) * strengths[number])
    return np.asarray(image)


def brightened(image: Image.Image, shift: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(1 + shift)


def contrasted(image: Image.Image, shift: float) -> Image.Image:
    return ImageEnhance.Contrast(image).enhance(1 + shift)


def saturated(image: Image.Image, shift: float) -> Image.Image:
    return ImageEnhance.Color(image).enhance(1 + shift)


def hue_turned(image: Image.Image, shift: float) -> Image.Image:
    """shift: of the circle of hues, -0.5 to 0.5."""
    hue, saturation, value = image.convert("HSV").split()
    # bytes go round as the hues do
    turned = np.asarray(hue) + np.uint8(math.trunc(shift * 255) % 256)
    parts = (Image.fromarray(turned), saturation, value)
    return Image.merge("HSV", parts).convert("RGB")


COLOURS = (brightened, contrasted, saturated, hue_turned)


def erased(picture: Pixels, config: AugmentConfig, rng: Rng, *, images: PreprocessConfig) -> Pixels:
    """A picture whose rectangle of 2 % to a third of its area is noise or the mean colour, or the picture itself.

    The noise is normal with the mean and deviation of `images`, cut to what a byte holds; the original draws it after
    the picture is normalised, without that cut.
    """
    if rng.random() >= config.erase:
        return picture
    box = erased_box(picture.shape[:2], rng)
    if box is None:
        return picture
    top, left, height, width = box
    # neutral to the network, or as noisy as pictures are to it
    patch = np.asarray(mean_colour(images), np.uint8)
    if config.erase_fill == "pixel":
        mean, std = (np.asarray(row, np.float32) for row in (images.mean, images.std))
        noise = rng.standard_normal((height, width, 3), np.float32)
        levels = (mean + noise * std) * 255
        patch = np.clip(np.round(levels), 0, 255).astype(np.uint8)
    out = picture.copy()
    out[top : top + height, left : left + width] = patch
    return out


def erased_box(size: tuple[int, int], rng: Rng) -> tuple[int, int, int, int] | None:
    """(top, left, height, width) of a rectangle inside (height, width); None if ten draws do not fit."""
    height, width = size
    for _ in range(TRIES):
        area = height * width * rng.uniform(*ERASED_AREA)
        # evenly in its logarithm: as often twice as high as twice as wide
        aspect = np.exp(rng.uniform(*np.log(ERASED_ASPECT)))
        h, w = round(np.sqrt(area * aspect)), round(np.sqrt(area / aspect))
        if 0 < h < height and 0 < w < width:
            top = int(rng.integers(0, height - h + 1))
            left = int(rng.integers(0, width - w + 1))
            return top, left, h, w
    return None
