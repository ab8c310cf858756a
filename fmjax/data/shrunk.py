"""A picture as its pixels, shrunk and not compressed: what is read of it later needs no decoder.

The pixels are a file of the netpbm formats (PPM; PGM where grey): a line of text, then a byte for each channel of each
pixel. So every reader of pictures reads them, by the same rules and within the same bounds.
"""

from __future__ import annotations

import io

from fmjax.data.images import Picture, read
from fmjax.data.resizing import RESAMPLING, Size, covering


def shrunk(size: Size, shorter: int) -> Size:
    """(width, height) in the same shape whose shorter side has so many pixels; a size below it stays."""
    return size if min(size) <= shorter else covering(size, (shorter, shorter))


def pixels(picture: Picture, *, shorter: int, max_pixels: int) -> bytes:
    """The file of an upright RGB or grey picture, by Pillow's bicubic filter, as evaluation resizes by it.

    Raises DataError for what is not a readable image or has over max_pixels.
    """
    image = read(picture, max_pixels=max_pixels)
    size = shrunk(image.size, shorter)
    if size != image.size:
        image = image.resize(size, RESAMPLING["bicubic"])
    file = io.BytesIO()
    image.save(file, "PPM")
    return file.getvalue()
