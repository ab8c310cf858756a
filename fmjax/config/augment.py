"""How training images are varied beyond the crop and the mirror image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fmjax.config.checks import require

MAX_LEVEL = 10  # of RandAugment's strength, in the units that its papers and timm count in
# what moves or covers the image alone, so that a mask beside it would no longer fit
IMAGE_ONLY = ("rotation", "rand_ops", "erase")


@dataclass(frozen=True, kw_only=True)
class AugmentConfig:
    """Changes of training images. What is 0 is off: it draws no random number and costs nothing."""

    vertical_flip: float = 0.0  # probability of an image upside down
    # probability of a turn by 90, 180 or 270 degrees; where images are not square, by 180
    quarter_turn: float = 0.0
    rotation: float = 0.0  # degrees to either side that an image is turned by at most
    # how far brightness, contrast, saturation and hue go: 0.4 is a factor of 0.6 to 1.4; of hue 0.5 is any
    color_jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    rand_ops: int = 0  # RandAugment's operations on an image, usually 2 (arXiv:1909.13719)
    rand_magnitude: float = 9.0  # their mean strength, 0 to 10
    rand_std: float = 0.5  # its standard deviation between operations
    erase: float = 0.0  # probability that a rectangle of an image is erased (arXiv:1708.04896)
    erase_fill: Literal["pixel", "const"] = "pixel"  # with noise, or with the mean colour

    def __post_init__(self) -> None:
        for name in ("vertical_flip", "quarter_turn", "erase"):
            value = getattr(self, name)
            require(0 <= value <= 1, flag_of(name), value, "a probability")
        require(0 <= self.rotation <= 180, "--data.rotation", self.rotation, "0 to 180 degrees")
        *factors, hue = self.color_jitter
        fits = all(0 <= factor <= 1 for factor in factors) and 0 <= hue <= 0.5
        expected = "three factors of 0 to 1, then a hue of 0 to 0.5"
        require(fits, "--data.color-jitter", self.color_jitter, expected)
        self._check_rand()

    def _check_rand(self) -> None:
        require(0 <= self.rand_ops <= 10, "--data.rand-ops", self.rand_ops, "0 to 10")
        level, std = self.rand_magnitude, self.rand_std
        require(0 <= level <= MAX_LEVEL, "--data.rand-magnitude", level, f"0 to {MAX_LEVEL}")
        require(0 <= std < math.inf, "--data.rand-std", std, "0 or more, and finite")

    def check_mask(self) -> None:
        """Raises UsageError for a change that a mask could not follow."""
        for name in IMAGE_ONLY:
            value = getattr(self, name)
            expected = "0 where examples have a mask, which would stay where it is"
            require(value == 0, flag_of(name), value, expected)


def flag_of(name: str) -> str:
    """As the command line spells a field of the data."""
    return f"--data.{name.replace('_', '-')}"
