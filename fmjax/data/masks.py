"""Masks: PNG files of one channel, whose value is the class of a pixel. Bounds and rules of safety are those of images.

Nothing is guessed: what may have been anything but a class (colours, lossy formats, a value without a name, another
size than the image's) stops the run by the mask's name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt16
from PIL import Image, UnidentifiedImageError

from fmjax.data.images import MAX_PIXELS, Broken, Picture, Unreadable, opened, reason_of
from fmjax.data.pixels import SIXTEEN_BITS, upright
from fmjax.errors import DataError, escaped

FORMATS = ("PNG",)
VALUE = np.uint16  # of all masks, whatever their files have: batches are stacked into one array
IGNORED = 65_535  # in an example, whatever value the files have for pixels of no class; no class has this number
# grey of 2 and 4 bits is spread over 0..255 by Pillow, and the class is what the file has
SPREAD = {"L;2": 85, "L;4": 17}
SINGLE = ("1", "L", "P", *SIXTEEN_BITS)


class WrongMask(DataError):
    """A mask that is not what its place says: another file, another size, a value without a class."""


@dataclass(frozen=True)
class Mask:
    """values uint16 [H W], and the name by which a person finds the mask."""

    name: str
    values: UInt16[np.ndarray, "H W"]


def read(mask: Picture, *, name: str, max_pixels: int = MAX_PIXELS) -> Mask:
    """The classes of an upright mask: a grey picture's values, a palette's indices.

    name: of its image, for a mask that is not a file. Raises WrongMask for what has colours or is no PNG, Unreadable
    for a file that is damaged or too large.
    """
    name = escaped(str(mask) if isinstance(mask, (str, Path)) else f"the mask of {name}")
    if isinstance(mask, np.ndarray):
        return Mask(name, _from_array(mask, name))
    if isinstance(mask, Broken):
        raise Unreadable(name, f"its mask: {mask.reason}")
    try:
        if isinstance(mask, Image.Image):
            return Mask(name, _values(mask, name))
        with opened(mask, max_pixels, formats=FORMATS) as image:
            return Mask(name, _values(image, name))
    except WrongMask:
        raise
    except UnidentifiedImageError as error:
        raise WrongMask(
            f"{name} is no PNG, or its header is damaged; save masks as PNG, which changes no value"
        ) from error
    except Exception as error:  # Pillow's plugins raise whatever a damaged file makes them raise
        reason = reason_of(error, max_pixels)
        raise Unreadable(name, f"its mask {Path(name).name[-60:]}: {reason}") from error


def check(mask: Mask, size: tuple[int, int], *, classes: int, ignore: int) -> None:
    """Raises WrongMask for a mask that does not fit its image, whose (width, height) is `size`, or its classes."""
    height, width = mask.values.shape
    if (width, height) != size:
        turned = " by its EXIF orientation, which is applied," if (height, width) == size else ""
        raise WrongMask(
            f"{mask.name} has {width} x {height} pixels, and its image{turned} {size[0]} x {size[1]}; "
            f"save the mask in the size of its image"
        )
    # the usual mask is settled by its largest value
    highest = int(mask.values.max())
    if highest < classes:
        return
    beyond = mask.values[(mask.values >= classes) & (mask.values != ignore)]
    if len(beyond):
        raise WrongMask(
            f"{mask.name} has the value {beyond.min()}, and the {classes:,} classes are 0 to {classes - 1}; "
            f"add it to classes.txt or map it to {ignore}"
        )


def marked(mask: Mask, *, ignore: int) -> UInt16[np.ndarray, "H W"]:
    """The values of a mask with `IGNORED` for the value that its file has where a pixel is of no class."""
    return np.where(mask.values == ignore, VALUE(IGNORED), mask.values)


def highest_class(mask: Mask, *, ignore: int) -> int:
    """The largest value of a pixel that is of a class; -1 where none is."""
    known = mask.values[mask.values != ignore]
    return int(known.max()) if len(known) else -1


def _values(image: Any, name: str) -> np.ndarray:
    # which bits the file has is known until it is decoded
    tiles = getattr(image, "tile", None)
    spread = SPREAD.get(tiles[0][3], 1) if tiles and image.format == "PNG" else 1
    image.load()
    # 16 bits, in older Pillow
    single = image.mode in SINGLE or (image.mode == "I" and image.format == "PNG")
    if not single:
        raise WrongMask(
            f"{name} has pixels of the kind {image.mode}, and a mask has one channel, whose value is the class; "
            f"save it as a grey or palette PNG"
        )
    values = np.asarray(upright(image)).astype(VALUE)
    return values // VALUE(spread) if spread > 1 else values


def _from_array(array: np.ndarray, name: str) -> np.ndarray:
    """Raises WrongMask for what is no [H W] of whole numbers of 16 bits."""
    whole = array.ndim == 2 and array.size and np.issubdtype(array.dtype, np.integer)
    if not whole or array.min() < 0 or array.max() > np.iinfo(VALUE).max:
        raise WrongMask(
            f"{name}, an array of {array.dtype} {array.shape}, is no mask; pass integers [height, width] of 0 to 65535"
        )
    return array.astype(VALUE)
