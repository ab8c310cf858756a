"""Pictures byte by byte: PNG chunks, TIFF tags, JPEG segments, GIF blocks and BMP headers with any field wrong."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
from PIL import Image

SOS = b"\xff\xda"
SHORT, LONG, LONG8 = 3, 4, 16  # types of TIFF
FORMS = {SHORT: "H", LONG: "I", LONG8: "Q"}


def saved(image: Image.Image, form: str, **options) -> bytes:
    data = io.BytesIO()
    image.save(data, form, **options)
    return data.getvalue()


def plain(
    mode: str = "RGB", width: int = 16, height: int = 16, form: str = "PNG", **options
) -> bytes:
    return saved(Image.new(mode, (width, height)), form, **options)


def noise(width: int, height: int, form: str, **options) -> bytes:
    values = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return saved(Image.fromarray(values), form, **options)


def chunk(kind: bytes, content: bytes, crc: int | None = None, length: int | None = None) -> bytes:
    check = zlib.crc32(kind + content) if crc is None else crc
    return (
        struct.pack(">I", len(content) if length is None else length)
        + kind
        + content
        + struct.pack(">I", check)
    )


def png(
    width: int = 16,
    height: int = 16,
    before: bytes = b"",
    bits: int = 8,
    colour: int = 0,
    content: bytes | None = None,
) -> bytes:
    """A grey PNG, unless colour says otherwise; `before` comes before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(b"\0" * (17 * 16))) if content is None else content
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + before + pixels + chunk(b"IEND", b"")


def rows(width: int, height: int, bytes_per_pixel: float = 1) -> bytes:
    """The pixels of a black picture, as one chunk, made without the picture."""
    packer = zlib.compressobj(1)
    row = b"\0" * (1 + -(-int(width * bytes_per_pixel * 8) // 8))
    block = row * max(1, (1 << 20) // len(row))
    data, left = b"", height * len(row)
    while left > 0:
        data += packer.compress(block[:left])
        left -= len(block)
    return chunk(b"IDAT", data + packer.flush())


def tiff(
    *tags: tuple[int, int, object],
    values: bytes = b"\0" * 256,
    big: bool = False,
    following: int = 0,
) -> bytes:
    """A little-endian TIFF: a header, one directory of (tag, type, value or values), and the pixels at 4096 or behind.

    `following` is the place of the next directory.
    """
    width, count_form, place_form = (8, "Q", "Q") if big else (4, "H", "I")
    start = 16 if big else 8
    head = b"II" + (struct.pack("<HHHQ", 43, 8, 0, start) if big else struct.pack("<HI", 42, start))
    directory, extra = struct.pack(f"<{count_form}", len(tags)), b""
    after = start + len(directory) + len(tags) * (12 + 2 * (width - 4)) + width
    for number, kind, value in sorted(tags):
        found = value if isinstance(value, (list, tuple)) else [value]
        packed = struct.pack(f"<{len(found)}{FORMS[kind]}", *found)
        if len(packed) > width:
            packed, extra = struct.pack(f"<{place_form}", after + len(extra)), extra + packed
        directory += struct.pack(f"<HH{place_form}", number, kind, len(found)) + packed.ljust(
            width, b"\0"
        )
    whole = head + directory + struct.pack(f"<{place_form}", following) + extra
    return whole.ljust(4096, b"\0") + values


def page(width: int = 16, height: int = 16, **tags: object) -> list[tuple[int, int, object]]:
    """Tags of an uncompressed grey picture whose pixels lie at 4096; by name, others."""
    numbers = {
        "bits": (258, SHORT),
        "compression": (259, SHORT),
        "photometric": (262, SHORT),
        "offsets": (273, LONG),
        "samples": (277, SHORT),
        "rows": (278, LONG),
        "counts": (279, LONG),
        "tile_width": (322, LONG),
        "tile_height": (323, LONG),
        "tile_offsets": (324, LONG),
        "tile_counts": (325, LONG),
        "kind": (339, SHORT),
    }
    usual: dict[str, object] = {
        "bits": 8,
        "compression": 1,
        "photometric": 1,
        "offsets": 4096,
        "samples": 1,
    }
    usual |= {"rows": height, "counts": width * height, **tags}
    found = [(*numbers[name], value) for name, value in usual.items() if value is not None]
    return [(256, LONG, width), (257, LONG, height), *found]


def segment(marker: int, content: bytes) -> bytes:
    return bytes((0xFF, marker)) + struct.pack(">H", len(content) + 2) + content


def with_size(data: bytes, width: int, height: int) -> bytes:
    """A JPEG whose frame header says another size."""
    place = max(data.find(b"\xff\xc0"), data.find(b"\xff\xc2"))
    return data[: place + 5] + struct.pack(">HH", height, width) + data[place + 9 :]


def more_scans(data: bytes, count: int) -> bytes:
    """A JPEG whose last scan comes again and again."""
    return data[:-2] + data[data.rindex(SOS) : -2] * count + data[-2:]


def gif(*blocks: bytes, width: int = 16, height: int = 16) -> bytes:
    whole = plain("P", form="GIF")
    picture = whole[whole.index(b",", 13) :]
    head = b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + b"\0" * 6
    return head + b"".join(blocks) + picture


def bmp(
    width: int = 16,
    height: int = 16,
    bits: int = 8,
    compression: int = 0,
    content: bytes = b"",
    offset: int = 1078,
) -> bytes:
    head = struct.pack(
        "<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(content), 0, 0, 256, 0
    )
    palette = b"\0" * 1024
    return (
        b"BM" + struct.pack("<IHHI", offset + len(content), 0, 0, offset) + head + palette + content
    )
