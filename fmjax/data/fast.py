"""Training crops about as the exact way has them, at a fraction of its time: `--data.decoder fast`. Imports no jax.

Half of the time of a picture is Pillow's resampling, which computes one number after the other. OpenCV takes a quarter
of that, but has no filter that grows with the factor: pictures are reduced by whole numbers first, and smoothed for
what is left of the factor, which is below 2.
"""

from __future__ import annotations

import importlib
import math
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fmjax.errors import UsageError
from fmjax.specs import Interpolation

SCALES = (8, 4, 2)  # that libjpeg decodes a picture's blocks at, one over each
KERNEL = (3, 3)  # pixels, of the smoothing
Box = tuple[int, int, int, int]  # left, top, right, bottom
Size = tuple[int, int]  # width, height
Factors = tuple[float, float]  # across and down: by which a picture becomes smaller


@lru_cache
def opencv() -> Any:
    """The module. Raises UsageError, with the fix, where it is not installed: another decoder would have other bits."""
    try:
        cv2 = importlib.import_module("cv2")
    except ImportError as error:
        raise UsageError(
            f"--data.decoder is 'fast', which needs OpenCV, and it cannot be imported ({error}); run `pip install "
            f"'fmjax[fast]'`, or pass --data.decoder exact"
        ) from error
    # examples are what the threads share; threads inside of each would only be in their way
    cv2.setNumThreads(1)
    return cv2


def reduction(size: Size, target: Size, *, scale: float) -> int:
    """How many times smaller a picture may be decoded: 8, 4, 2 or 1, so that no crop with `scale` of the area or more
    is smaller than the target. Sizes are (width, height)."""
    width, height = size
    # a crop is at most 4:3 or 3:4, or all of a picture that is thinner
    least = min(math.sqrt(width * height * scale * 3 / 4), width, height)
    return next((factor for factor in SCALES if least >= factor * max(target)), 1)


def crop_resized(
    image: Image.Image, box: Box, size: Size, interpolation: Interpolation
) -> UInt8[np.ndarray, "H W 3"]:
    """A part of an RGB or grey picture at a (width, height)."""
    cv2 = opencv()
    method = cv2.INTER_CUBIC if interpolation == "bicubic" else cv2.INTER_LINEAR
    left, top, right, bottom = box
    across, down = (right - left) / size[0], (bottom - top) / size[1]
    if interpolation == "bilinear_no_antialias":
        pixels = np.asarray(image.crop(box))
    else:
        pixels, (across, down) = _reduced(image, box, (across, down))
        pixels = _smoothed(pixels, (across, down))
    # by the factors, not by the sizes: the last of the means may be of fewer pixels, and then lies beyond the part
    out = cv2.resize(pixels, None, fx=1 / across, fy=1 / down, interpolation=method)
    out = out[: size[1], : size[0]]
    return out if out.ndim == 3 else cv2.cvtColor(out, cv2.COLOR_GRAY2RGB)


def _reduced(image: Image.Image, box: Box, factors: Factors) -> tuple[np.ndarray, Factors]:
    """(means of as many whole pixels as leave factors below 2, these factors)."""
    across, down = (max(int(factor), 1) for factor in factors)
    if across == down == 1:
        return np.asarray(image.crop(box)), factors
    means = np.asarray(image.reduce((across, down), box))
    return means, (factors[0] / across, factors[1] / down)


def _smoothed(pixels: np.ndarray, factors: Factors) -> np.ndarray:
    """What is finer than the target's own pixels is taken out, as it would be seen as stripes."""
    if max(factors) <= 1:
        return pixels
    # as wide as a triangle of the target's pixels is wider than one of the picture's: variances of 1/6 pixel add up
    x, y = (math.sqrt(max(factor**2 - 1, 1e-6) / 6) for factor in factors)
    return opencv().GaussianBlur(pixels, KERNEL, x, sigmaY=y)
