"""Paths, file contents, PIL images and arrays -> upright pictures, within bounds of memory and time.

A picture may come from anybody: only the formats of FORMATS are ever tried, only regular files are opened, sizes are
checked before anything is decoded. Imports neither jax nor flax.
"""

from __future__ import annotations

import contextlib
import io
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

# each registers itself: Pillow, asked for one that it does not know yet, would import all 40 plugins
from PIL import (
    BmpImagePlugin,  # noqa: F401
    GifImagePlugin,  # noqa: F401
    Image,
    JpegImagePlugin,  # noqa: F401
    MpoImagePlugin,  # noqa: F401
    PngImagePlugin,  # noqa: F401
    PpmImagePlugin,  # noqa: F401
    TiffImagePlugin,  # noqa: F401
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401
)

from fmjax.data.pixels import plain
from fmjax.data.reading import Reader
from fmjax.errors import DataError, escaped

try:
    from PIL import AvifImagePlugin

    AVIF = AvifImagePlugin.SUPPORTED
except ImportError:  # before Pillow 11.3
    AVIF = False


@dataclass(frozen=True)
class Broken:
    """What stands in the place of a picture that its source could not give, and why."""

    reason: str


Picture = str | Path | bytes | Image.Image | np.ndarray | Broken
MAX_PIXELS = 50_000_000
MAX_SIDE = 65_535  # of a JPEG; what a resize needs beside the picture grows with the longer side
BYTES_PER_PIXEL = 8  # that a picture may take while it is decoded and converted
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jfif"),
    "PNG": (".png",),
    "WEBP": (".webp",),
    "BMP": (".bmp",),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
} | ({"AVIF": (".avif",)} if AVIF else {})
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)
KNOWN = "JPEG, PNG, WebP, BMP, GIF, TIFF" + ", AVIF" * AVIF + " or PPM"
# bytes a pixel, measured; all others take at most BYTES_PER_PIXEL
DECODING = {"WEBP": 16, "AVIF": 9}
SEGMENTS = 10_000  # of a JPEG's header
SCANS = 32  # that a JPEG of the largest size may have: each goes over all of its blocks
# decoders of Pillow's that take about a microsecond a pixel
BY_PYTHON = ("bmp_rle", "ppm", "ppm_plain")


class Unreadable(DataError):
    """A picture that cannot be used, and why."""

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{escaped(name)} is not a readable image: {reason}")
        self.reason = reason


def decode(picture: Picture, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An upright RGB image by the rules of docs/images.md: rotation applied, 16 bits scaled, transparency over white.

    Raises DataError, naming the file and the reason, for what is not a readable image or has over max_pixels.
    """
    return read(picture, max_pixels=max_pixels).convert("RGB")


def read(
    picture: Picture,
    *,
    max_pixels: int = MAX_PIXELS,
    reduction: Callable[[tuple[int, int]], int] | None = None,
) -> Image.Image:
    """The same, where a grey picture stays grey. reduction: of a JPEG's size how many times smaller to decode it."""
    if isinstance(picture, np.ndarray):
        return _from_array(picture)
    if isinstance(picture, Broken):
        raise Unreadable("the picture", picture.reason)
    try:
        if isinstance(picture, Image.Image):
            return plain(picture)
        with opened(picture, max_pixels) as image:
            if reduction is not None and image.format == "JPEG":
                _reduce(image, reduction(image.size))
            return plain(image)
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        raise Unreadable(_name(picture), reason_of(error, max_pixels)) from error


def _reduce(image: Any, factor: int) -> None:
    """Has libjpeg decode each block of the picture at 1, 1/2, 1/4 or 1/8 of its size."""
    if factor > 1:
        image.draft(None, (image.width // factor, image.height // factor))


def _name(picture: Picture) -> str:
    if isinstance(picture, (str, Path)):
        return str(picture)
    return "the content" if isinstance(picture, bytes) else "the PIL image"


def reason_of(error: Exception, max_pixels: int) -> str:
    """Why a picture cannot be read, as it may be printed."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        return f"it has more than {max_pixels:,} pixels; make it smaller"
    if isinstance(error, UnidentifiedImageError):
        return f"it is no {KNOWN}, or its header is damaged"
    if isinstance(error, MemoryError):
        return "it needs more memory than there is"
    if isinstance(error, OSError) and error.strerror:
        return f"it cannot be opened: {error.strerror}"
    return escaped(str(error) or type(error).__name__, 200)


@contextlib.contextmanager
def opened(
    picture: str | Path | bytes, max_pixels: int, *, formats: tuple[str, ...] = tuple(FORMATS)
) -> Iterator[Any]:
    """A picture of one of the formats: its header has been read and its size checked, nothing is decoded yet."""
    with _reader(picture, max_pixels) as file, _identified(file, max_pixels, formats) as image:
        yield image


@contextlib.contextmanager
def _reader(picture: str | Path | bytes, max_pixels: int) -> Iterator[Reader]:
    if isinstance(picture, bytes):
        yield Reader(io.BytesIO(picture), len(picture), max_pixels)
        return
    with regular_file(picture) as file:
        yield Reader(file, os.fstat(file.fileno()).st_size, max_pixels)


def regular_file(path: str | Path) -> io.FileIO:
    """A file opened for reading. Raises DataError for a folder, pipe, socket or device, which it never waits for."""
    check_regular(os.stat(path).st_mode)  # opening a device alone may do something
    descriptor = os.open(
        path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    )
    file = io.FileIO(descriptor)
    try:
        check_regular(os.fstat(descriptor).st_mode)  # it may be another one by now
    except DataError:
        file.close()
        raise
    return file


def check_regular(mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise DataError("it is a folder")
    if not stat.S_ISREG(mode):
        raise DataError("it is a pipe, socket or device, not a file")


def _identified(file: Reader, max_pixels: int, formats: tuple[str, ...]) -> Image.Image:
    """The picture behind a file: its header is read, nothing decoded. Raises DataError where it is too much."""
    if not file.size:
        raise DataError("the file is empty")
    image = Image.open(file, formats=formats)
    scans = _scans(image, file)
    _check_size(image, scans, max_pixels)
    _check_tiles(image, max_pixels)
    file.decoding(byte_by_byte=_by_python(image))
    return image


def _check_size(image: Any, scans: int, max_pixels: int) -> None:
    width, height = image.size
    kind, taken = f"a {image.format}", DECODING.get(image.format, BYTES_PER_PIXEL)
    if scans > 1:  # libjpeg keeps two bytes a pixel and channel until the last one
        kind, taken = "a progressive JPEG", 4 + 2 * image.layers
    limit = max_pixels * BYTES_PER_PIXEL // max(taken, BYTES_PER_PIXEL)
    if _by_python(image):
        # a microsecond a pixel: at the default cap a picture takes five seconds at most
        kind, limit = f"a {image.format} of this rare kind", max_pixels // 10
    if width * height > limit:
        raise DataError(
            f"it has {width} x {height} pixels, more than the {limit:,} that {kind} may have; make it smaller, or "
            f"raise --data.max-pixels"
        )
    if max(width, height) > MAX_SIDE:
        raise DataError(
            f"it has {width} x {height} pixels, and no side may be longer than {MAX_SIDE:,}; cut it"
        )
    if scans * width * height > SCANS * max_pixels:
        raise DataError(
            f"it has {scans:,} scans, where a progressive JPEG has about ten; save it again"
        )


def _by_python(image: Any) -> bool:
    return bool(image.tile) and image.tile[0][0] in BY_PYTHON


def _scans(image: Any, file: Reader) -> int:
    """How often a JPEG goes over its picture; 1 for the usual one, which is decoded as it is read."""
    if image.format not in ("JPEG", "MPO"):
        return 1
    # of a JPEG, the first scan's header was read last; a file of several pictures has been rewound
    channels = image.layers
    # FF DA, two bytes of length, how many channels, two bytes for each, three more
    length = 8 + 2 * channels
    start = file.tell() - length if image.format == "JPEG" else _first_scan(file)
    usual = bytes((0xFF, 0xDA, 0, length - 2, channels))  # all channels in one scan
    if file.around(start, 5) == usual and "progressive" not in image.info:
        return 1
    return 1 + file.count(b"\xff\xda", start + length)


def _first_scan(file: Reader) -> int:
    """Where it starts: behind the segments of the header, each of which tells its length. 0 if they are not so."""
    place = 2
    for _ in range(SEGMENTS):
        head = file.around(place, 4)
        if head[:2] == b"\xff\xda":
            return place
        if len(head) < 4 or head[0] != 0xFF:
            break
        place += 2 + int.from_bytes(head[2:])
    return 0


def _check_tiles(image: Any, limit: int) -> None:
    """A TIFF's tile is decoded whole, however small the picture is."""
    tags = getattr(image, "tag_v2", {})
    # TileWidth and TileLength (TIFF 6.0, sec. 15)
    width, height = tags.get(322, 0), tags.get(323, 0)
    if width * height > limit:
        raise DataError(
            f"it has tiles of {width} x {height} pixels, more than the {limit:,} allowed; save it again"
        )


def _from_array(array: np.ndarray) -> Image.Image:
    # what Pillow takes as grey or RGB; of floats nothing tells whether white is 1 or 255
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3))
    ):
        raise DataError(
            f"an array of {array.dtype} {array.shape} is no image; pass uint8 [height, width, 3]"
        )
    if 0 in array.shape:
        raise DataError(
            f"an array of the shape {array.shape} holds no pixels; pass uint8 [height, width, 3]"
        )
    # to Pillow, grey has no axis of channels
    one_channel = array.ndim == 3 and array.shape[2] == 1
    return Image.fromarray(array[..., 0] if one_channel else array)
