"""Pictures -> uint8 arrays of the size that a network is fed. Pillow's resampling, which most originals evaluate with
(torchvision transforms.Resize on PIL images), or TensorFlow's bilinear one, which big_vision evaluates with."""

from __future__ import annotations

import numpy as np
from jaxtyping import Integer, UInt8
from PIL import Image

from fmjax.data.pixels import bands
from fmjax.specs import Interpolation, PreprocessConfig

RESAMPLING = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
SUPPORT = {Image.Resampling.BICUBIC: 2, Image.Resampling.BILINEAR: 1}  # pixels to either side
THIN = 100  # times as high as wide, from which on Pillow takes rows before columns
WHOLE = 32  # a picture is scaled whole, then cropped, up to this many times the area of the crop
Size = tuple[int, int]  # width, height
Box = tuple[int, int, int, int]  # left, top, right, bottom


def resize(image: Image.Image, config: PreprocessConfig) -> UInt8[np.ndarray, "H W C"]:
    """The evaluation transform of an RGB or grey picture: resize (the shorter side, or both), then crop the centre.

    A thin picture, whose whole would be over 32 times the crop, is cropped while it is scaled. The filter is the same;
    Pillow may take rows before columns then, whose rounding differs from what the originals' order gives.
    """
    target, window = evaluated(image.size, config)
    return windowed(image, target, window=window, interpolation=config.interpolation)


def evaluated(size: Size, config: PreprocessConfig) -> tuple[Size, Box]:
    """((width, height) that evaluation scales a picture of a size to, the window that it then crops)."""
    height, width = config.image_size
    target = (int(width / config.crop_pct), int(height / config.crop_pct))
    if config.resize_mode == "shortest":
        target = covering(size, target)
    return target, _centre(target, width, height)


def windowed(
    image: Image.Image, target: Size, *, window: Box, interpolation: Interpolation
) -> UInt8[np.ndarray, "H W C"]:
    """A window of the picture as it is when scaled to the target (width, height)."""
    if interpolation == "bilinear_no_antialias":
        return sampled(image, target, window=window)
    method = RESAMPLING[interpolation]
    left, top, right, bottom = window
    width, height = right - left, bottom - top
    # 1 x 4000 pixels, scaled until they cover a square, would be 224 x 896,000 before the crop
    if target[0] * target[1] > WHOLE * width * height:
        box = _back(window, target, image.size)
        return _pixels(image.resize((width, height), method, box=box))
    if target == image.size:
        return _pixels(image.crop(window))
    # a thin picture is scaled down before it is scaled across, at once
    if window == (0, 0, *target) or image.height > THIN * image.width:
        return _pixels(image.resize(target, method).crop(window))
    return _pixels(_cut(image, target, window=window, method=method))


def _cut(image: Image.Image, target: Size, *, window: Box, method: Image.Resampling) -> Image.Image:
    """A window of the scaled picture, bit for bit, without computing all of what lies beside it.

    Pillow scales across, rounds to bytes, then scales down. So rows that the window does not need are left out of the
    first, and columns of the second; the positions of all others stay as they are in the whole.
    """
    left, top, right, bottom = window
    width, height = image.size
    # the filter's reach, and a row for what rounds
    factor = height / target[1]
    reach = SUPPORT[method] * max(factor, 1) + 2
    first, last = max(int(top * factor - reach), 0), min(int(bottom * factor + reach) + 1, height)
    across = image.crop((0, first, width, last)).resize((target[0], last - first), method)
    columns = Image.new(image.mode, (right - left, height))
    columns.paste(across.crop((left, 0, right, last - first)), (0, first))
    return columns.resize((right - left, target[1]), method).crop((0, top, right - left, bottom))


def nearest(
    mask: Integer[np.ndarray, "H W"], target: Size, *, window: Box
) -> Integer[np.ndarray, "h w"]:
    """The same window of the mask scaled to the target: of each pixel, the value at its centre, never a mixture."""
    left, top, right, bottom = window
    height, width = mask.shape
    # the centre of a pixel lies half a pixel in
    rows = (np.arange(top, bottom) + 0.5) * (height / target[1])
    columns = (np.arange(left, right) + 0.5) * (width / target[0])
    rows = np.clip(rows.astype(np.int64), 0, height - 1)
    columns = np.clip(columns.astype(np.int64), 0, width - 1)
    return mask[np.ix_(rows, columns)]


def scaled(
    image: Image.Image, box: Box, size: tuple[int, int], interpolation: Interpolation
) -> UInt8[np.ndarray, "H W C"]:
    """A part of a picture at a (width, height)."""
    if interpolation == "bilinear_no_antialias":
        return sampled(image.crop(box), size, window=(0, 0, *size))
    return _pixels(image.resize(size, RESAMPLING[interpolation], box=box))


def covering(size: Size, wanted: Size) -> Size:
    """(width, height) with the image's own shape that covers the wanted size; rounding down as torchvision does."""
    width, height = size
    # products are compared, as quotients of equal shapes may round apart
    if width * wanted[1] <= height * wanted[0]:
        return wanted[0], int(wanted[0] * height / width)
    return int(wanted[1] * width / height), wanted[1]


def contained(size: Size, wanted: Size) -> Size:
    """(width, height) with the image's own shape, the largest that the wanted size has room for."""
    width, height = size
    if width * wanted[1] >= height * wanted[0]:
        return wanted[0], max(round(wanted[0] * height / width), 1)
    return max(round(wanted[1] * width / height), 1), wanted[1]


def _centre(size: tuple[int, int], width: int, height: int) -> Box:
    # a half is rounded to the even side, as torchvision's center_crop does
    left = round((size[0] - width) / 2.0)
    top = round((size[1] - height) / 2.0)
    return left, top, left + width, top + height


def _back(
    window: Box, target: tuple[int, int], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """A window of the scaled picture in the coordinates of the picture itself."""
    width, height = size
    x, y = width / target[0], height / target[1]
    left, top, right, bottom = window
    return left * x, top * y, min(right * x, width), min(bottom * y, height)


def _pixels(image: Image.Image) -> np.ndarray:
    """Three channels; those of a grey picture are alike, whether it is made RGB before or after a resize."""
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def sampled(
    image: Image.Image, target: tuple[int, int], *, window: Box
) -> UInt8[np.ndarray, "H W C"]:
    """A window of the picture at the target (width, height), bilinear without antialiasing.

    As tf.image.resize(method="bilinear", antialias=False) and a cast to uint8, in float32: pixel centres at halves, the
    four neighbours of each point, columns before rows, and the cast cuts decimals off (big_vision pp/ops_image.py).
    """
    left, top, right, bottom = window
    x0, x1, x = _neighbours(image.width, target[0], left, right)
    y0, y1, y = _neighbours(image.height, target[1], top, bottom)
    # only what is read becomes float32: of a photograph scaled down that is a small part
    columns, rows = np.unique([x0, x1]), np.unique([y0, y1])
    source = _gathered(image, rows, columns).astype(np.float32)
    x0, x1 = np.searchsorted(columns, x0), np.searchsorted(columns, x1)
    y0, y1 = np.searchsorted(rows, y0), np.searchsorted(rows, y1)
    left_of, right_of = source[:, x0], source[:, x1]
    across = left_of + (right_of - left_of) * x[:, None]  # [rows W C]
    above, below = across[y0], across[y1]
    down = above + (below - above) * y[:, None, None]  # [H W C]
    pixels = np.clip(down, 0, 255).astype(np.uint8)
    return pixels if pixels.shape[2] == 3 else np.repeat(pixels, 3, 2)


def _neighbours(
    length: int, out: int, start: int, stop: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(lower index, upper index, weight of the upper) of the points start..stop of `out` points over a side."""
    # in float32, as the original's kernel: the cast to bytes would show other digits
    scale = np.float32(length) / np.float32(out)
    half, numbers = np.float32(0.5), np.arange(start, stop, dtype=np.float32)
    points = (numbers + half) * scale - half
    floor = np.floor(points)
    lower = np.maximum(floor, 0).astype(np.int64)
    upper = np.minimum(np.ceil(points), length - 1).astype(np.int64)
    return lower, upper, points - floor


def _gathered(image: Image.Image, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """uint8 [rows columns C], without an array of the whole picture."""
    parts = []
    for top, band in bands(image):
        inside = rows[(rows >= top) & (rows < top + band.height)] - top
        pixels = np.asarray(band)
        pixels = pixels.reshape(*pixels.shape[:2], -1)  # grey has no axis of channels
        parts.append(pixels[np.ix_(inside, columns)])
    return np.concatenate(parts)
