"""Pictures inside a page: small, as data of the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

QUALITY = 80  # of WebP: a thumbnail of 128 pixels takes about 3 kB
SPRITE_QUALITY = 70
SMALL = (
    64  # pixels: below, a picture is shown with its pixels, as a smooth one would pretend detail
)


def photo(image: Image.Image, side: int, *, quality: int = QUALITY) -> str:
    """A photograph as a data URI, its longer side at most so many pixels; the centre is not cut out."""
    small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    # a few pixels are cheaper, and exact, without loss
    if max(small.size) <= SMALL:
        return exact(np.asarray(small))
    return _uri(small, "WEBP", quality=quality, method=4)


def exact(pixels: UInt8[np.ndarray, "H W *C"]) -> str:
    """An array of grey values, colours or colours with opacity as a data URI, every value as it is."""
    return _uri(Image.fromarray(pixels), "PNG", optimize=True)


def sprite(images: Sequence[Image.Image], side: int) -> tuple[str, int]:
    """Many small pictures as one data URI, in rows, each in the middle of its own square; and how many a row has."""
    columns = max(int(np.ceil(np.sqrt(len(images)))), 1)
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * side, max(rows, 1) * side), (128, 128, 128))
    for place, image in enumerate(images):
        small = image.convert("RGB")
        # a picture of 8 pixels is enlarged, or it would be a dot in its square
        scale = side / max(small.size)
        size = (max(round(small.width * scale), 1), max(round(small.height * scale), 1))
        enlarged = small.resize(size, _resampling(scale))
        row, column = divmod(place, columns)
        left, top = column * side + (side - size[0]) // 2, row * side + (side - size[1]) // 2
        sheet.paste(enlarged, (left, top))
    return _uri(sheet, "WEBP", quality=SPRITE_QUALITY, method=4), columns


def _resampling(scale: float) -> Image.Resampling:
    return Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS


def _uri(image: Image.Image, kind: str, **options: int | bool) -> str:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
