"""RandAugment (arXiv:1909.13719) in timm's space of operations whose strength grows with the level ("inc1").

Every operation takes a level of 0 to 1, which timm counts from 0 to 10, and the magnitudes are those of its
auto_augment.py.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from fmjax.config.augment import MAX_LEVEL, AugmentConfig

Rng = np.random.Generator
CHANCE = 0.5  # that an operation which was drawn is applied, as in timm
LARGEST_ANGLE = 30  # degrees
LARGEST_SHEAR = 0.3  # pixels for each pixel along the other side
LARGEST_SHIFT = 0.45  # of the side
LARGEST_FACTOR = 0.9  # away from 1, of colours
LARGEST_ADDED = 110  # to the dark half of 256 levels
INTERPOLATIONS = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Draw:
    """What an operation may draw, and the colour of what it leaves empty."""

    rng: Rng
    fill: tuple[int, int, int]

    def signed(self, value: float) -> float:
        """The value or its negative."""
        return -value if self.rng.random() < 0.5 else value

    def moved(self, image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
        """An image whose pixel (x, y) comes from (ax + by + c, dx + ey + f)."""
        transform, method = Image.Transform.AFFINE, self.interpolation()
        return image.transform(image.size, transform, matrix, method, fillcolor=self.fill)

    def interpolation(self) -> Image.Resampling:
        return INTERPOLATIONS[int(self.rng.integers(len(INTERPOLATIONS)))]


Operation = Callable[[Image.Image, float, Draw], Image.Image]


def rand_augment(
    image: Image.Image, config: AugmentConfig, rng: Rng, *, fill: tuple[int, int, int]
) -> Image.Image:
    """An RGB image after some operations that are drawn with replacement, each applied every other time."""
    draw, names = Draw(rng, fill), list(OPERATIONS)
    for number in rng.integers(len(names), size=config.rand_ops):
        if rng.random() < CHANCE:
            level = rng.normal(config.rand_magnitude, config.rand_std) / MAX_LEVEL
            image = OPERATIONS[names[number]](image, min(max(level, 0.0), 1.0), draw)
    return image


def rotate(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    angle = draw.signed(level * LARGEST_ANGLE)
    return image.rotate(angle, draw.interpolation(), fillcolor=draw.fill)


def shear_x(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return draw.moved(image, (1.0, draw.signed(level * LARGEST_SHEAR), 0.0, 0.0, 1.0, 0.0))


def shear_y(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return draw.moved(image, (1.0, 0.0, 0.0, draw.signed(level * LARGEST_SHEAR), 1.0, 0.0))


def translate_x(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    pixels = draw.signed(level * LARGEST_SHIFT) * image.width
    return draw.moved(image, (1.0, 0.0, pixels, 0.0, 1.0, 0.0))


def translate_y(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    pixels = draw.signed(level * LARGEST_SHIFT) * image.height
    return draw.moved(image, (1.0, 0.0, 0.0, 0.0, 1.0, pixels))


def auto_contrast(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return ImageOps.equalize(image)


def invert(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return ImageOps.invert(image)


def posterize(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    # 4 bits down to one: at level 1 it would be none of them, a black picture, which newer Pillows refuse
    return ImageOps.posterize(image, max(4 - int(level * 4), 1))


def solarize(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    return ImageOps.solarize(image, 256 - int(level * 256))


def solarize_add(image: Image.Image, level: float, draw: Draw) -> Image.Image:
    levels = np.arange(256)
    # the dark half alone becomes lighter
    table = np.where(levels < 128, levels + int(level * LARGEST_ADDED), levels)
    return image.point(table.tolist() * 3)


def enhance(
    image: Image.Image,
    level: float,
    draw: Draw,
    *,
    kind: Callable[[Image.Image], ImageEnhance._Enhance],
) -> Image.Image:
    return kind(image).enhance(1 + draw.signed(level * LARGEST_FACTOR))


OPERATIONS: dict[str, Operation] = {
    "auto contrast": auto_contrast,
    "equalize": equalize,
    "invert": invert,
    "rotate": rotate,
    "posterize": posterize,
    "solarize": solarize,
    "solarize add": solarize_add,
    "color": partial(enhance, kind=ImageEnhance.Color),
    "contrast": partial(enhance, kind=ImageEnhance.Contrast),
    "brightness": partial(enhance, kind=ImageEnhance.Brightness),
    "sharpness": partial(enhance, kind=ImageEnhance.Sharpness),
    "shear x": shear_x,
    "shear y": shear_y,
    "translate x": translate_x,
    "translate y": translate_y,
}
