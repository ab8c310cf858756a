"""Each kind of pixel has one rule, which does not look at the picture's own values."""

from __future__ import annotations

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from fmjax.data.images import read
from fmjax.data.pixels import BAND, bands, plain
from fmjax.errors import DataError
from fmjax.preprocessing import decode, to_rgb
from tests.security.pictures import chunk, page, png, saved, tiff

GREYS = np.arange(256, dtype=np.uint8).reshape(16, 16)


def grey_of(content: bytes) -> np.ndarray:
    """The one channel of a grey picture, uint8 [H W]."""
    pixels = np.asarray(decode(content))
    assert (pixels == pixels[..., :1]).all()
    return pixels[..., 0]


def floats(values: np.ndarray, photometric: int = 1) -> bytes:
    tags = page(bits=32, kind=3, counts=1024, photometric=photometric)
    return tiff(*tags, values=values.astype("<f4").tobytes())


def sixteen(values: np.ndarray, photometric: int = 1) -> bytes:
    return tiff(
        *page(bits=16, counts=512, photometric=photometric), values=values.astype("<u2").tobytes()
    )


def packed_12(values: np.ndarray) -> bytes:
    """Two values in three bytes, as TIFF packs them."""
    pairs = values.reshape(-1, 2).astype(int)
    packed = np.stack(
        [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], 1
    )
    return tiff(*page(bits=12, counts=384), values=packed.astype(np.uint8).tobytes())


DEEP = GREYS.astype(int) * 257
KINDS = {
    "16-bit png": saved(Image.fromarray(DEEP.astype(np.uint16)), "PNG"),
    "16-bit tiff": sixteen(DEEP),
    "16-bit tiff, white is zero": sixteen(65535 - DEEP, photometric=0),
    "16-bit big-endian tiff": saved(Image.fromarray(DEEP.astype(">u2")), "TIFF"),
    "16-bit pgm": b"P5 16 16 65535\n" + DEEP.astype(">u2").tobytes(),
    "12-bit tiff": packed_12(np.round(GREYS / 255 * 4095)),
    "float tiff": floats(GREYS / 255),
    "float tiff, white is zero": floats(1 - GREYS / 255, photometric=0),
    "float pfm": b"Pf 16 16 -1.0\n" + (GREYS[::-1] / 255).astype("<f4").tobytes(),
    "8-bit tiff, white is zero": tiff(*page(photometric=0), values=(255 - GREYS).tobytes()),
    "palette": saved(Image.fromarray(GREYS).convert("P"), "PNG"),
    "opaque alpha": saved(Image.fromarray(GREYS).convert("LA"), "PNG"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_grey_levels(kind):
    assert np.array_equal(grey_of(KINDS[kind]), GREYS)


def test_the_scale_does_not_depend_on_the_picture():
    """A dark picture stays dark: 12 bits in 16, which nothing tells, are a sixteenth of white, as the file says."""
    assert grey_of(sixteen(np.full((16, 16), 4095))).max() == 16
    assert grey_of(floats(np.full((16, 16), 1 / 255))).max() == 1
    assert np.abs(grey_of(floats(GREYS / 510)) - GREYS / 2).max() <= 0.5


REFUSED = {
    "int32": (
        tiff(*page(bits=32, kind=2, counts=1024), values=GREYS.astype("<i4").tobytes()),
        "integers of 32 bits",
    ),
    "uint32": (
        tiff(*page(bits=32, kind=1, counts=1024), values=GREYS.astype("<u4").tobytes()),
        "integers of 32 bits",
    ),
    "0..255": (
        floats(GREYS.astype(float)),
        "floats from 0 to 255, and float pictures must lie in 0..1; save it as 8",
    ),
    "0..65535": (floats(GREYS * 257.0), "floats from 0 to 65535"),
    "negative": (floats(GREYS / 255 - 0.5), "floats from -0.5 to 0.5"),
    "nan": (floats(np.where(GREYS == 3, np.nan, 0.5)), "floats from nan to nan"),
    "lab": (saved(Image.new("LAB", (4, 4)), "TIFF"), "its colours are Lab, .* save it as RGB"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_no_rule_can_scale_is_refused_with_the_way_out(kind):
    content, reason = REFUSED[kind]
    with pytest.raises(DataError, match=reason):
        decode(content)


@pytest.mark.parametrize(
    "image", [Image.new("I", (4, 4), 7), Image.new("F", (4, 4), 200.0), Image.new("LAB", (4, 4))]
)
def test_pil_images_follow_the_same_rules(image):
    with pytest.raises(DataError, match="the PIL image is not a readable image"):
        decode(image)
    with pytest.raises(DataError, match=r"its (pixels|colours) are"):
        to_rgb(image)


def test_colours_follow_their_standards():
    assert decode(Image.new("CMYK", (1, 1), (0, 255, 255, 0))).getpixel((0, 0)) == (255, 0, 0)
    assert decode(Image.new("HSV", (1, 1), (0, 255, 255))).getpixel((0, 0)) == (255, 0, 0)
    assert decode(Image.new("YCbCr", (1, 1), (128, 128, 128))).getpixel((0, 0)) == (128, 128, 128)
    assert decode(Image.new("1", (1, 1), 1)).getpixel((0, 0)) == (255, 255, 255)
    clear = [
        Image.new("RGBA", (1, 1), (255, 0, 0, 0)),
        Image.new("LA", (1, 1), (0, 0)),
        Image.new("RGBa", (1, 1)),
    ]
    assert [decode(image).getpixel((0, 0)) for image in clear] == [(255, 255, 255)] * 3


def test_a_value_that_means_transparent_is_white_in_16_bits_too():
    clear, values = chunk(b"tRNS", b"\0\7"), np.where(GREYS < 128, 7, 0)
    found = grey_of(png(bits=16, before=clear, content=_rows(values)))
    assert np.array_equal(found, np.where(GREYS < 128, 255, 0))


def _rows(values: np.ndarray) -> bytes:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return chunk(b"IDAT", zlib.compress(rows))


def test_bands_change_nothing():
    """A large picture is converted in parts, which must not show."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (1_300, 1_700, 4), np.uint8)
    image = Image.fromarray(pixels)
    assert image.width * image.height > BAND
    assert sum(band.height for _, band in bands(image)) == image.height
    alpha = pixels[..., 3:].astype(float) / 255
    expected = pixels[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(np.asarray(plain(image)) - expected).max() <= 1
    top = np.asarray(plain(image.crop((0, 600, 1_700, 700))))
    assert np.array_equal(np.asarray(plain(image))[600:700], top)


def test_a_grey_picture_stays_grey_until_it_is_resized():
    assert read(saved(Image.fromarray(GREYS), "PNG")).mode == "L"
    assert decode(saved(Image.fromarray(GREYS), "PNG")).mode == "RGB"
    assert decode(io.BytesIO(saved(Image.fromarray(GREYS), "PNG")).read()).mode == "RGB"
