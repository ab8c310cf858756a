"""One picture -> what a set of a million needs to remember of it, in 40 bytes."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from PIL import ExifTags, Image

from fmjax.data import masks
from fmjax.data.example import Examples
from fmjax.data.images import FORMATS, SUFFIXES, Picture, opened, read, reason_of
from fmjax.data.masks import WrongMask
from fmjax.data.pixels import ALPHA, SIXTEEN_BITS, UNSIGNED, plain

# of a picture by itself, a bit each in `Facts.kinds`
KINDS = (
    "one-colour", "small", "large", "long", "other-format", "several-frames",
    "cmyk", "16-bit", "float", "palette", "one-bit", "alpha", "turned",
)  # fmt: skip
# kinds of pixels that are one by their mode alone
MODES = {"CMYK": "cmyk", "F": "float", "P": "palette", "PA": "palette", "1": "one-bit"}
# a phone's JPEG has a preview or a depth map behind it, which nobody takes for a second picture
SINGLE = ("MPO",)
FACTS = np.dtype(
    [
        ("digest", np.uint64, 2),  # of the pixels as the network would get them
        ("look", np.uint64),  # a bit for each step from dark to bright in an 8 x 8 copy
        ("colour", np.uint8, 3),  # on the average
        ("width", np.uint32),
        ("height", np.uint32),
        ("format", np.uint8),  # index into NAMED
        ("kinds", np.uint32),  # a bit for each of KINDS
    ]
)
NAMED = ("none", *FORMATS, "MPO")


@dataclass(frozen=True)
class Bounds:
    """Where a picture is named for its size. small: a side in pixels; large: pixels; long: one side over the other."""

    small: int
    large: int
    long: float


@dataclass(frozen=True)
class Seen:
    """A picture: its row of FACTS, or why it has none."""

    facts: Any = None
    reason: str = ""  # why it cannot be read
    mask: str = ""  # what is wrong with its mask
    # sums over its pixels, of the three values in 0..1 and of their squares, and how many pixels there are
    sums: np.ndarray = field(default_factory=lambda: np.zeros(7))


def look(
    examples: Examples, index: int, *, bounds: Bounds, max_pixels: int, ignore: int, summed: bool
) -> Seen:
    """What is to be known of one example. summed: also add up its pixels."""
    name = examples.names(index)
    picture: Any = None
    try:
        # a field may be read from an archive, so that it too can fail
        picture = examples.fields["image"](index)
        with _header(picture, max_pixels) as header:
            image = plain(header)
            found = _kinds(header, name) | _shape_kinds(image, bounds)
            named, rgb = _format(header), image.convert("RGB")
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        return Seen(reason=getattr(error, "reason", "") or reason_of(error, max_pixels))
    wrong, unreadable = _mask(examples, index, rgb.size, max_pixels=max_pixels, ignore=ignore)
    if unreadable:
        return Seen(reason=unreadable)
    facts = _facts(rgb, named, found)
    return Seen(facts, mask=wrong, sums=_sums(rgb) if summed else np.zeros(7))


@contextlib.contextmanager
def _header(picture: Picture, max_pixels: int) -> Iterator[Image.Image]:
    """The picture before it is converted, which tells what it was."""
    if isinstance(picture, str | Path | bytes):
        with opened(picture, max_pixels) as image:
            yield image
    elif isinstance(picture, Image.Image):
        yield picture
    else:
        # an array, which was no file; or what a source gives in the place of a picture that it cannot read
        yield read(picture)


def _format(image: Image.Image) -> str:
    return image.format if image.format in NAMED else "none"


def _kinds(image: Image.Image, name: str) -> set[str]:
    """What its file says, once its pixels have been read."""
    sixteen = image.mode in SIXTEEN_BITS or (image.mode == "I" and image.format in UNSIGNED)
    orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
    tests = {
        MODES.get(image.mode, ""): image.mode in MODES,
        "16-bit": sixteen,
        "alpha": image.mode in ALPHA or "transparency" in image.info,
        "turned": orientation != 1,
        "several-frames": _has_frames(image),
        "other-format": _is_misnamed(image.format, name),
    }
    return {kind for kind, holds in tests.items() if holds}


def _is_misnamed(format: str | None, name: str) -> bool:
    # a name without a suffix of ours says nothing of the content
    suffix = os.path.splitext(name)[1].lower()
    if format is None or suffix not in SUFFIXES:
        return False
    # a JPEG of several pictures is named like any other
    return suffix not in FORMATS.get("JPEG" if format == "MPO" else format, ())


def _has_frames(image: Any) -> bool:
    if image.format in SINGLE:
        return False
    try:
        return bool(getattr(image, "is_animated", False))
    except Exception:  # a second frame that is damaged: nobody reads it
        return True


def _shape_kinds(image: Image.Image, bounds: Bounds) -> set[str]:
    shorter, longer = sorted(image.size)
    tests = {
        "small": shorter < bounds.small,
        "large": shorter * longer > bounds.large,
        "long": longer > bounds.long * shorter,
        "one-colour": _is_flat(image),
    }
    return {kind for kind, holds in tests.items() if holds}


def _is_flat(image: Image.Image) -> bool:
    extremes = np.reshape(np.asarray(image.getextrema()), (-1, 2))
    # one pixel is of one colour, and small already
    return bool((extremes[:, 0] == extremes[:, 1]).all()) and image.size != (1, 1)


def _mask(
    examples: Examples, index: int, size: tuple[int, int], *, max_pixels: int, ignore: int
) -> tuple[str, str]:
    """(what is wrong with the mask of an example, why its mask cannot be read); "" where nothing is."""
    if "mask" not in examples.fields:
        return "", ""
    try:
        mask = examples.fields["mask"](index)
        found = masks.read(mask, name=examples.names(index), max_pixels=max_pixels)
        masks.check(found, size, classes=len(examples.classes), ignore=ignore)
    except WrongMask as error:
        return str(error), ""
    except Exception as error:  # as of the image
        return "", getattr(error, "reason", "") or reason_of(error, max_pixels)
    return "", ""


def _facts(rgb: Image.Image, named: str, found: set[str]) -> np.ndarray:
    """A row of FACTS."""
    row = np.zeros((), FACTS)
    # with the size: two rows of pixels are not one of twice the length
    digest = xxhash.xxh3_128(str(rgb.size).encode())
    digest.update(rgb.tobytes())
    row["digest"] = np.frombuffer(digest.digest(), np.uint64)
    row["look"], row["colour"] = _look(rgb)
    row["width"], row["height"] = rgb.size
    row["format"] = NAMED.index(named)
    row["kinds"] = sum(1 << number for number, kind in enumerate(KINDS) if kind in found)
    return row


def _look(rgb: Image.Image) -> tuple[int, np.ndarray]:
    """(64 bits that stay nearly the same when a picture is saved or scaled anew, its average colour)."""
    # the "difference hash": whether each of 8 x 8 cells is brighter than the one before it
    tiny = rgb.resize((9, 8), Image.Resampling.BILINEAR, reducing_gap=2)
    grey = np.asarray(tiny.convert("L"), np.int16)
    bits = np.packbits(grey[:, 1:] > grey[:, :-1])
    colour = np.asarray(tiny).reshape(-1, 3).mean(0).round().astype(np.uint8)
    return int.from_bytes(bits.tobytes(), "big"), colour


def _sums(rgb: Image.Image) -> np.ndarray:
    """float64 [7]: of the values in 0..1, of their squares, and the number of pixels."""
    # by their counts: 256 numbers a channel, however large the picture is
    counts = np.reshape(rgb.histogram(), (3, 256))
    values = np.arange(256) / 255
    return np.array([*(counts @ values), *(counts @ values**2), rgb.width * rgb.height])
