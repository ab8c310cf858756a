"""The rule for every kind of pixel: what a picture holds -> grey or RGB of 8 bits, upright.

No rule looks at the picture's own values to tell their scale: two pictures of one kind are always converted alike, and
a kind whose scale nothing tells is refused. docs/images.md has them all as a table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import ExifTags, Image, ImageOps

from fmjax.errors import DataError

# pixels that are converted at once: what a conversion needs beside the picture stays small
BAND = 1 << 20
WHITE = (255, 255, 255, 255)
SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
# formats whose integers Pillow hands out as 0..65535, in mode I where it is older
UNSIGNED = ("PNG", "PPM")
# Pillow's own conversion of them is exact or a standard
COLOURS = ("P", "CMYK", "YCbCr", "HSV", "RGBX")
# mode -> that without premultiplying
ALPHA = {"RGBA": "RGBA", "LA": "LA", "PA": "PA", "RGBa": "RGBA", "La": "LA"}
BITS_PER_SAMPLE, PHOTOMETRIC = 258, 262  # tags of TIFF
HALF_LEVEL = 0.5 / 255
RESAVE = "save it as 8 or 16 bits"


def to_rgb(image: Image.Image) -> Image.Image:
    """An upright RGB image by explicit rules, where Pillow's conversion clips 16 bits and turns transparency black.

    Raises DataError for a kind of pixel that has no rule, and for float values that are not in 0..1.
    """
    return plain(image).convert("RGB")


def plain(image: Image.Image) -> Image.Image:
    """The same, where a grey picture stays grey ("L"): a quarter of the memory, and the same bits after a resize."""
    image.load()  # some formats know of their rotation only at the end
    mode, convert = _rule(image)
    turned = upright(image)
    return turned if convert is None else _by_bands(turned, mode, convert)


def upright(image: Image.Image) -> Image.Image:
    """The picture turned as its EXIF orientation says."""
    # exif_transpose copies the whole picture where there is nothing to do, which is nearly always
    if image.getexif().get(ExifTags.Base.Orientation, 1) == 1:
        return image
    return ImageOps.exif_transpose(image)


def _rule(image: Image.Image) -> tuple[str, Callable[[Image.Image], Image.Image] | None]:
    """(mode of the result, how a band is converted); None where the picture is plain already."""
    mode = image.mode
    # 16 bits come before transparency, which is one grey level of them and is looked up with the others
    if mode in SIXTEEN_BITS or (mode == "I" and image.format in UNSIGNED):
        levels = _levels(image)
        return "L", lambda band: Image.fromarray(levels[np.clip(np.asarray(band), 0, 65535)])
    if mode == "F":
        inverted = _tag(image, PHOTOMETRIC) == 0
        return "L", lambda band: Image.fromarray(_from_unit(np.asarray(band), inverted))
    if mode in ALPHA or "transparency" in image.info:
        return "RGB", _over_white
    if mode in ("L", "RGB"):
        return mode, None
    if mode == "1":
        return "L", lambda band: band.convert("L")
    if mode in COLOURS:
        return "RGB", lambda band: band.convert("RGB")
    raise DataError(
        REFUSED.get(
            mode, f"its pixels are of the kind {mode}, for which there is no rule; {RESAVE}"
        )
    )


REFUSED = {
    "I": f"its pixels are integers of 32 bits or with a sign, and nothing tells their range; {RESAVE}",
    "LAB": "its colours are Lab, whose white point nothing tells; save it as RGB",
}


def _levels(image: Image.Image) -> np.ndarray:
    """uint8 [65536]: the grey level of each 16-bit value."""
    # TIFF packs 12 bits too and says so; MaxSampleValue must not be used so (TIFF 6.0: "for statistical purposes")
    highest = 65535
    if image.format == "TIFF":
        highest = 2 ** int(_tag(image, BITS_PER_SAMPLE) or 16) - 1
    unit = np.clip(np.arange(65536) / highest, 0, 1)
    levels = np.round(unit * 255).astype(np.uint8)
    if _tag(image, PHOTOMETRIC) == 0:  # WhiteIsZero, which Pillow obeys for 8 bits only
        levels = 255 - levels
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        # the grey level that stands for "nothing here", over white
        levels[clear] = 255
    return levels


def _tag(image: Image.Image, number: int) -> int | None:
    """A TIFF's tag; the first value where there are several, None where there is none."""
    value = getattr(image, "tag_v2", {}).get(number)
    return value[0] if isinstance(value, tuple) else value


def _from_unit(values: np.ndarray, inverted: bool) -> np.ndarray:
    """0..1 -> 0..255. Values further than half a level outside are another scale, which would turn all white."""
    low, high = values.min(), values.max()
    if not (low >= -HALF_LEVEL and high <= 1 + HALF_LEVEL):  # so that NaN is refused too
        raise DataError(
            f"its pixels are floats from {low:.6g} to {high:.6g}, and float pictures must lie in 0..1; {RESAVE}"
        )
    unit = np.clip(values.astype(np.float64), 0, 1)
    return np.round((1 - unit if inverted else unit) * 255).astype(np.uint8)


def _over_white(band: Image.Image) -> Image.Image:
    # alpha_composite takes colours that are not multiplied by their alpha yet
    straight = ALPHA.get(band.mode, band.mode)
    rgba = (band if straight == band.mode else band.convert(straight)).convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, WHITE), rgba).convert("RGB")


def bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(first row, picture of some rows) from top to bottom: one band where the picture is small."""
    rows = max(1, BAND // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        yield top, image.crop((0, top, image.width, bottom))


def _by_bands(
    image: Image.Image, mode: str, convert: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    if image.width * image.height <= BAND:
        return convert(image)
    # the copies that a conversion makes are of a band, not of 50 million pixels
    out = Image.new(mode, image.size)
    for top, band in bands(image):
        out.paste(convert(band), (0, top))
    return out
