"""Transforms of a whole example: its image and its mask move together. Imports no jax.

An example has "image", an upright RGB or grey PIL picture, and may have "mask", an integer array [H W] of its size.
What comes back has arrays: image uint8 [h w 3], mask [h w]. All other fields stay. The image is interpolated, the mask
takes the nearest value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from PIL import Image

from fmjax.config.augment import AugmentConfig
from fmjax.data.augment import augmented
from fmjax.data.example import Example
from fmjax.data.fast import crop_resized, reduction
from fmjax.data.masks import IGNORED
from fmjax.data.resizing import (
    Box,
    Size,
    contained,
    covering,
    evaluated,
    nearest,
    resize,
    scaled,
    windowed,
)
from fmjax.specs import Interpolation, PreprocessConfig

ASPECT = (3 / 4, 4 / 3)  # width to height of a random crop
LOG_ASPECT = tuple(np.log(ASPECT).tolist())
TRIES = 10  # at a crop that fits
Scaled = Callable[[Image.Image, Box, Size, Interpolation], np.ndarray]  # a part at another size


@dataclass(frozen=True)
class Views:
    """How a classifier's examples are seen: crop, mirror image and more in training, the weights' own evaluation else.

    crop_scale: smallest part of the image's area that a crop has; 1 switches the crop off. flip: a probability.
    augment: all further changes, none by default. decoder: "fast" for random crops by OpenCV.
    """

    images: PreprocessConfig
    crop_scale: float = 1
    flip: float = 0
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    decoder: Literal["exact", "fast"] = "exact"

    def __call__(self, example: Example, rng: np.random.Generator | None) -> Example:
        """The arrays of an example. rng None: evaluation."""
        if rng is None:
            return fit(example, self.images)
        if self.crop_scale < 1:
            way = crop_resized if self.decoder == "fast" else scaled
            example = random_resized_crop(
                example, self.images, rng, scale=self.crop_scale, scaled=way
            )
        else:
            example = fit(example, self.images)
        return self.varied(example, rng)

    def reduction(self, size: Size) -> int:
        """How many times smaller a picture (width, height) may be decoded for training."""
        if self.decoder == "exact" or self.crop_scale == 1:
            return 1
        # where nothing is antialiased, what is skipped is skipped in the picture itself
        if self.images.interpolation == "bilinear_no_antialias":
            return 1
        height, width = self.images.image_size
        return reduction(size, (width, height), scale=self.crop_scale)

    def varied(self, example: Example, rng: np.random.Generator) -> Example:
        """An example of arrays as training changes it once it is cropped: mirrored, turned, in other colours."""
        changes = self.augment
        example = mirror(example, rng, probability=self.flip)
        # flips and quarter turns move a mask too; the others are of the image
        if changes.vertical_flip:
            example = upside_down(example, rng, probability=changes.vertical_flip)
        if changes.quarter_turn:
            example = quarter_turned(example, rng, probability=changes.quarter_turn)
        image = augmented(example["image"], changes, rng, images=self.images)
        return {**example, "image": image}


def fit(example: Example, config: PreprocessConfig) -> Example:
    """The weights' own evaluation: resize, then crop the centre."""
    target, window = evaluated(example["image"].size, config)
    return _moved(
        example,
        image=lambda image: resize(image, config),
        mask=lambda mask: nearest(mask, target, window=window),
    )


def random_resized_crop(
    example: Example,
    config: PreprocessConfig,
    rng: np.random.Generator,
    *,
    scale: float,
    scaled: Scaled = scaled,
) -> Example:
    """Part of an example, at config's image_size (arXiv:1409.4842, as torchvision draws it).

    scale: smallest part of the area. scaled: what resizes a part of a picture. The crop is resized as the weights'
    evaluation resizes: big_vision trains without antialiasing, too.
    """
    height, width = config.image_size
    size, whole = (width, height), (0, 0, width, height)
    left, top, right, bottom = box = crop_box(example["image"].size, scale, rng)
    return _moved(
        example,
        image=lambda image: scaled(image, box, size, config.interpolation),
        mask=lambda mask: nearest(mask[top:bottom, left:right], size, window=whole),
    )


def fit_inside(example: Example, config: PreprocessConfig, *, ignore: int = IGNORED) -> Example:
    """All of an example, scaled in its own shape to the largest that fits config's image_size.

    What it leaves empty, on the right or below, is of the mean colour and `ignore` in the mask.
    """
    height, width = config.image_size
    target = contained(example["image"].size, (width, height))
    return _padded(example, config, target, window=(0, 0, *target), ignore=ignore)


def mirror(example: Example, rng: np.random.Generator, *, probability: float) -> Example:
    """The mirror image of an example of arrays, or the example itself."""
    # drawn whatever the probability, so that it changes nothing else that is random
    if rng.random() >= probability:
        return example

    def turned(array: np.ndarray) -> np.ndarray:
        return _laid_out(array[:, ::-1])

    return _moved(example, image=turned, mask=turned)


def upside_down(example: Example, rng: np.random.Generator, *, probability: float) -> Example:
    """An example of arrays whose first row is the last, or the example itself."""
    if rng.random() >= probability:
        return example

    def turned(array: np.ndarray) -> np.ndarray:
        return array[::-1]

    return _moved(example, image=turned, mask=turned)


def quarter_turned(example: Example, rng: np.random.Generator, *, probability: float) -> Example:
    """An example of arrays turned by 90, 180 or 270 degrees, or the example itself; by 180 where it is not square."""
    if rng.random() >= probability:
        return example
    height, width = example["image"].shape[:2]
    # a batch has one shape
    turns = int(rng.integers(1, 4)) if height == width else 2

    def turned(array: np.ndarray) -> np.ndarray:
        return _laid_out(np.rot90(array, turns))

    return _moved(example, image=turned, mask=turned)


def _laid_out(turned: np.ndarray) -> np.ndarray:
    """A view [h w ...] whose pixels do not lie in their order, as an array where those of an image do."""
    if turned.ndim == 2:
        return turned
    # a channel at a time takes a fifth of what numpy takes for pixels of three bytes
    out = np.empty(turned.shape, turned.dtype)
    for channel in range(turned.shape[2]):
        out[..., channel] = turned[..., channel]
    return out


def scale_jitter_crop(
    example: Example,
    config: PreprocessConfig,
    rng: np.random.Generator,
    *,
    jitter: tuple[float, float] = (0.5, 2.0),
    ignore: int = IGNORED,
) -> Example:
    """A random crop of config's image_size out of an example scaled by a random factor.

    At factor 1 the shorter side is that of the crop (arXiv:2304.07193 sec. 7.4, as mmsegmentation trains). What the
    scaled example does not fill is of the mean colour on the right and below, and `ignore` in the mask.
    """
    height, width = config.image_size
    target = _jittered(example["image"].size, (width, height), rng.uniform(*jitter))
    window = _random_window(target, (width, height), rng)
    return _padded(example, config, target, window=window, ignore=ignore)


def crop_box(size: Size, scale: float, rng: np.random.Generator) -> Box:
    """(left, top, right, bottom) of a crop with `scale` to all of the area; the whole image if ten draws do not fit."""
    width, height = size
    for _ in range(TRIES):
        area = width * height * rng.uniform(scale, 1)
        # evenly in its logarithm: as often 3:4 as 4:3
        aspect = np.exp(rng.uniform(*LOG_ASPECT))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left = int(rng.integers(0, width - w + 1))
            top = int(rng.integers(0, height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _moved(example: Example, *, image: Callable[[Any], Any], mask: Callable[[Any], Any]) -> Example:
    """The example with each of its pictures moved in its own way."""
    moved = {**example, "image": image(example["image"])}
    if "mask" in example:
        moved["mask"] = mask(example["mask"])
    return moved


def _padded(
    example: Example, config: PreprocessConfig, target: Size, *, window: Box, ignore: int
) -> Example:
    """A window of an example scaled to the target (width, height), filled up to config's image_size."""
    mean = np.round(np.asarray(config.mean) * 255).astype(np.uint8)

    def image(picture: Any) -> np.ndarray:
        seen = windowed(picture, target, window=window, interpolation=config.interpolation)
        return _filled(seen, config.image_size, mean)

    def mask(values: np.ndarray) -> np.ndarray:
        return _filled(nearest(values, target, window=window), config.image_size, ignore)

    return _moved(example, image=image, mask=mask)


def _jittered(size: Size, wanted: Size, factor: float) -> Size:
    """(width, height) of a picture that covers the wanted size, times a factor."""
    width, height = covering(size, wanted)
    return max(round(width * factor), 1), max(round(height * factor), 1)


def _random_window(size: Size, wanted: Size, rng: np.random.Generator) -> Box:
    """A window of the wanted size, or of all that there is along a side that is shorter."""
    width, height = (min(there, side) for there, side in zip(size, wanted, strict=True))
    left = int(rng.integers(0, size[0] - width + 1))
    top = int(rng.integers(0, size[1] - height + 1))
    return left, top, left + width, top + height


def _filled(array: np.ndarray, shape: tuple[int, int], value: Any) -> np.ndarray:
    """[h w ...] -> [H W ...], the rest of one value."""
    if array.shape[:2] == shape:
        return array
    out = np.empty((*shape, *array.shape[2:]), array.dtype)
    out[:] = value
    out[: array.shape[0], : array.shape[1]] = array
    return out
