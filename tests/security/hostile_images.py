"""All hostile pictures: name -> (content, part of the reason that it is refused for; "" where it is read)."""

from __future__ import annotations

import os
import socket
import struct
import zlib
from functools import cache
from pathlib import Path

from PIL import Image

from tests.security.pictures import (
    LONG,
    SHORT,
    bmp,
    chunk,
    gif,
    more_scans,
    noise,
    page,
    plain,
    png,
    rows,
    saved,
    segment,
    tiff,
    with_size,
)

Pictures = dict[str, tuple[bytes, str]]
FOREIGN = "is no JPEG, PNG"
LARGE, SIDE, PIECES = (
    "pixels, more than the",
    "no side may be longer than 65,535",
    "too many small pieces",
)
TOO_LARGE = "[Tt]oo [Ll]arge"
POSTSCRIPT = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\n{} loop\n"
WRITTEN = (
    "ICO",
    "ICNS",
    "TGA",
    "PCX",
    "SGI",
    "DDS",
    "JPEG2000",
    "MSP",
    "XBM",
    "SPIDER",
    "DIB",
    "QOI",
    "BLP",
)


@cache
def hostile() -> Pictures:
    groups = (foreign, sizes, pngs, jpegs, tiffs, gifs_and_webps, bmps_and_ppms, values, nothing)
    return {key: row for group in groups for key, row in group().items()}


def foreign() -> Pictures:
    """Formats that Pillow reads, some by starting programs, under the name of a PNG."""
    Image.init()
    modes = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}
    found = {
        "eps": POSTSCRIPT,
        "eps-dos": b"\xc5\xd0\xd3\xc6"
        + struct.pack("<7I", 32, len(POSTSCRIPT), 0, 0, 0, 0, 0)
        + POSTSCRIPT,
        "ps": b"%!PS\n{} loop\n",
        "pdf": b"%PDF-1.7\n1 0 obj <</Type /Catalog>> endobj\n",
        "wmf": b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 64,
        "emf": b"\1\0\0\0" + b"\0" * 36 + b" EMF" + b"\0" * 64,
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "svg-entities": b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xx"><!ENTITY y "&x;&x;">]><svg>&y;</svg>',
        "fits": b"SIMPLE  =                    T".ljust(2880),
        "hdf5": b"\x89HDF\r\n\x1a\n" + b"\0" * 64,
        "grib": b"GRIB" + b"\0\0\0\1" + b"\0" * 64,
        "bufr": b"BUFR" + b"\0" * 64,
        "psd": b"8BPS" + struct.pack(">H6xHIIHH", 1, 3, 16, 16, 8, 3) + b"\0" * 64,
        "xpm": b'/* XPM */\nstatic char *x[] = {"1 1 1 1", "a c #000", "a"};',
        "mpeg": b"\0\0\1\xb3" + b"\x10\0\x10" + b"\0" * 64,
        "pcd": b"\0" * 2048 + b"PCD_" + b"\0" * 100,
        "sun": b"\x59\xa6\x6a\x95" + struct.pack(">7I", 16, 16, 8, 256, 1, 0, 0) + b"\0" * 256,
        "fli": struct.pack("<IHHHH", 200, 0xAF12, 1, 16, 16) + b"\0" * 128,
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 64,
        "zip": b"PK\3\4" + b"\0" * 64,
        "program": b"\x7fELF" + b"\0" * 64,
    }
    found |= {
        form.lower(): plain(modes.get(form, "RGB"), form=form)
        for form in WRITTEN
        if form in Image.SAVE
    }
    return {f"foreign-{key}": (content, FOREIGN) for key, content in found.items()}


def sizes() -> Pictures:
    side, deep = 7_071, {"bits": 16}
    return {
        "size-at-the-cap-grey": (png(side, side, content=rows(side, side)), ""),
        "size-at-the-cap-colour": (png(side, side, colour=2, content=rows(side, side, 3)), ""),
        "size-at-the-cap-16-bits": (png(side, side, **deep, content=rows(side, side, 2)), ""),
        "size-at-the-cap-1-bit": (png(side, side, bits=1, content=rows(side, side, 1 / 8)), ""),
        "size-clear": (png(5_000, 5_000, colour=6, content=rows(5_000, 5_000, 4)), ""),
        "size-over-16-bits": (png(13_300, 13_300, **deep), "it has more than|" + LARGE),
        "size-over-rgba": (png(9_000, 9_000, colour=6), LARGE),
        "size-over-1-bit": (png(13_300, 13_300, bits=1), "it has more than|" + LARGE),
        "size-over-at-once": (png(30_000, 30_000), "it has more than"),
        "size-thin-column": (png(1, 65_000, content=rows(1, 65_000)), ""),
        "size-thin-row": (png(65_535, 1, content=rows(65_535, 1)), ""),
        "size-thin-two": (png(4_000, 2, content=rows(4_000, 2)), ""),
        "size-thinner": (png(100_000_000, 1), "it has more than|" + LARGE),
        "size-thin-long": (png(1, 40_000_000), SIDE),
        "size-webp": (
            plain(width=5_100, height=5_000, form="WEBP", lossless=True, method=0),
            "25,000,000 that a WEBP",
        ),
        "size-progressive": (
            with_size(plain(form="JPEG", progressive=True), 6_400, 6_300),
            "a progressive JPEG may",
        ),
        "size-jpeg": (with_size(plain(form="JPEG"), 65_500, 65_500), "it has more than"),
        "size-gif": (gif(width=65_535, height=65_535), "it has more than"),
        "size-tiff": (tiff(*page(60_000, 60_000)), "it has more than"),
        "size-negative-bmp": (bmp(-16, 16), "."),
        "size-largest-bmp": (bmp(2**31 - 1, 2**31 - 1), "it has more than"),
        "size-ppm": (b"P5 99999999 99999999 255\n", "it has more than"),
        "size-none": (png(0, 16), "."),
    }


def pngs() -> Pictures:
    body, squeezed = plain("RGB", 64, 64), zlib.compress(b"\0" * (1 << 26), 9)
    crumbs = b"".join(chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(os.urandom(300_000)))
    texts = chunk(b"zTXt", b"a\0\0" + zlib.compress(b"\0" * 1_000_000)) * 100
    animation = chunk(b"acTL", struct.pack(">II", 2**31 - 1, 0))
    return {
        "png-text-bomb": (png(before=chunk(b"zTXt", b"a\0\0" + squeezed)), TOO_LARGE),
        "png-text-bombs": (png(before=texts), "memory|[Ll]arge"),
        "png-international-bomb": (
            png(before=chunk(b"iTXt", b"a\0\1\0\0\0" + squeezed)),
            TOO_LARGE,
        ),
        "png-profile-bomb": (png(before=chunk(b"iCCP", b"a\0\0" + squeezed)), TOO_LARGE),
        "png-many-chunks": (png(before=chunk(b"tEXt", b"a\0") * 100_000), PIECES),
        "png-crumbs": (png(400, 750, content=crumbs), PIECES),
        "png-many-frames": (png(before=animation), ""),
        "png-pixel-bomb": (png(content=chunk(b"IDAT", squeezed)), ""),
        "png-checksum": (body[:60] + bytes([body[60] ^ 1]) + body[61:], "."),
        "png-header-checksum": (body[:20] + bytes([body[20] ^ 1]) + body[21:], FOREIGN),
        "png-half": (body[: len(body) // 2], "."),
        "png-long-chunk": (png(before=chunk(b"tEXt", b"a\0", length=2**31 - 1)), "."),
        "png-palette-none": (png(colour=3), ""),
        "png-interlace": (png()[:28] + b"\7" + png()[29:], FOREIGN),
    }


def jpegs() -> Pictures:
    body, slow = (
        noise(64, 64, "JPEG"),
        plain(form="JPEG", width=2_000, height=2_000, progressive=True),
    )
    exif = b"Exif\0\0II*\0\x08\0\0\0\1\0" + struct.pack("<HHII", 0x8769, LONG, 1, 8) + b"\x08\0\0\0"
    formats = segment(0xE2, b"MPF\0" + b"II*\0\x08\0\0\0" + b"\xff" * 60)
    return {
        "jpeg-scans": (
            more_scans(slow, 5_000),
            r"[\d,]+ scans, where a progressive JPEG has about ten",
        ),
        "jpeg-flood": (b"\xff\xd8" + b"\xff" * 3_000_000 + body[2:], PIECES),
        "jpeg-comments": (body[:2] + segment(0xFE, b"") * 100_000 + body[2:], PIECES),
        "jpeg-half": (body[: len(body) // 2], "truncated"),
        "jpeg-no-height": (with_size(body, 64, 0), "."),
        "jpeg-stop": (body[:2], FOREIGN),
        "jpeg-exif-loop": (body[:2] + segment(0xE1, exif) + body[2:], ""),
        "jpeg-exif-text": (body[:2] + segment(0xE1, b"Exif\0\0<svg>") + body[2:], ""),
        "jpeg-pictures": (body[:2] + formats + body[2:], ""),
        "jpeg-zeros": (body[:700] + b"\0" * 100_000, ""),
        "jpeg-in-png": (b"\x89PNG\r\n\x1a\n" + body, FOREIGN),
    }


def tiffs() -> Pictures:
    tiles = {"offsets": None, "rows": None, "counts": None, "compression": 8}
    squeezed = zlib.compress(b"\0" * (1 << 26), 9)
    bomb = page(
        **tiles, tile_width=32_768, tile_height=32_768, tile_offsets=4096, tile_counts=len(squeezed)
    )
    many = list(range(5_000, 65_000)) * 2
    text = tiff((256, LONG, 16), (257, LONG, 16))
    return {
        "tiff-tile": (tiff(*bomb, values=squeezed), "tiles of 32768 x 32768"),
        "tiff-loop": (tiff(*page(), following=8), ""),
        "tiff-strips": (tiff(*page(height=16, rows=1, offsets=many, counts=many)), "."),
        "tiff-far": (tiff(*page(offsets=2**32 - 1)), "."),
        "tiff-long-strip": (tiff(*page(counts=2**32 - 1)), ""),
        "tiff-samples": (tiff(*page(samples=65_535)), FOREIGN),
        "tiff-bits": (tiff(*page(bits=[8] * 9_000)), ""),
        "tiff-compression": (tiff(*page(compression=34_712)), FOREIGN + "|."),
        "tiff-no-pixels": (text, FOREIGN),
        "tiff-no-rows": (tiff(*page(rows=0)), "outside image"),
        "tiff-large-tags": (tiff(*page(), (270, SHORT, [1] * 2_000_000)), ""),
        "tiff-big-far": (tiff(*page(), big=True, following=2**60), ""),
        "tiff-deflate-bomb": (
            tiff(*page(compression=8, counts=len(squeezed)), values=squeezed),
            "",
        ),
        "tiff-half": (plain("RGB", 64, 64, "TIFF")[:5_000], "."),
        "tiff-lab": (saved(Image.new("LAB", (16, 16)), "TIFF"), "its colours are Lab"),
    }


def gifs_and_webps() -> Pictures:
    comment = b"!\xfe" + (b"\xff" + b"a" * 255) * 30_000 + b"\0"
    frames = [Image.new("L", (2, 2), number % 256) for number in range(2_000)]
    films = {"save_all": True, "append_images": frames[1:]}
    still = plain("RGB", 64, 64, "WEBP")
    return {
        "gif-comment": (gif(comment), PIECES),
        "gif-extensions": (gif(b"!\xf9\4\0\0\0\0\0" * 30_000), PIECES),
        "gif-frames": (saved(frames[0], "GIF", **films), ""),
        "gif-no-picture": (b"GIF89a\x10\0\x10\0\0\0\0;", "."),
        "gif-half": (noise(64, 64, "GIF")[:2_000], "."),
        "webp-frames": (saved(frames[0], "WEBP", **films), ""),
        "webp-half": (still[: len(still) // 2], "."),
        "webp-empty": (b"RIFF\xff\xff\xff\xffWEBPVP8X" + b"\xff" * 18, "."),
    }


def bmps_and_ppms() -> Pictures:
    ends = b"\1\0\0\0" * 760
    return {
        "bmp-run-lengths": (bmp(65_535, 760, compression=1, content=ends), "of this rare kind"),
        "bmp-jumps": (bmp(2_000, 2_000, compression=1, content=b"\0\2\xff\xff" * 3_000), ""),
        "bmp-png-inside": (bmp(compression=5, content=png()), FOREIGN + "|."),
        "bmp-far": (bmp(offset=2**31), "."),
        "bmp-short": (bmp(2_000, 2_000), "truncated"),
        "bmp-bits": (bmp(bits=13), FOREIGN + "|."),
        "ppm-slow": (b"P5 3000 3000 100\n" + b"\0" * 100, "of this rare kind"),
        "ppm-comment": (b"P5 #" + b"a" * 1_000_000 + b"\n16 16 255\n" + b"\0" * 256, PIECES),
        "ppm-short": (b"P6 4000 4000 255\n" + b"\0" * 100, "truncated"),
        "ppm-number": (b"P5 " + b"9" * 100_000 + b" 1 255\n", "."),
        "ppm-text": (b"P3 16 16 255\n" + b"x " * 768, "."),
        "ppm-no-highest": (b"P5 16 16 0\n" + b"\0" * 256, "."),
    }


def values() -> Pictures:
    """Kinds of pixel that no rule can bring to grey levels."""
    word, whole = {"bits": 32, "counts": 1024}, "32 bits or with a sign"
    return {
        "values-int32": (
            tiff(*page(**word, kind=2), values=struct.pack("<256i", *range(256))),
            "32 bits or with a sign",
        ),
        "values-uint32": (tiff(*page(**word, kind=1), values=b"\0" * 1024), whole),
        "values-int16": (tiff(*page(bits=16, counts=512, kind=2), values=b"\0" * 512), whole),
        "values-float-255": (
            tiff(*page(**word, kind=3), values=struct.pack("<f", 254.0) * 256),
            "must lie in 0..1",
        ),
        "values-nan": (
            tiff(*page(**word, kind=3), values=struct.pack("<f", float("nan")) * 256),
            "must lie in 0..1",
        ),
        "values-infinite": (
            b"Pf 2 2 -1.0\n" + struct.pack("<4f", *[float("inf")] * 4),
            "must lie in 0..1",
        ),
    }


def nothing() -> Pictures:
    return {
        "nothing": (b"", "the file is empty"),
        "nothing-zeros": (b"\0" * 5_000, FOREIGN),
        "nothing-html": (b"<html><img src='x'></html>", FOREIGN),
        "nothing-escapes": (b"\x1b]0;owned\x07\x1b[2J", FOREIGN),
    }


def places(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is no plain file, or larger than any disk, made in the folder: name -> (path, part of the reason)."""
    os.mkfifo(folder / "pipe.png")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "folder.png").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    here = os.getcwd()
    os.chdir(folder)  # a socket's path has 100 characters at most
    listening.bind("socket.png")
    os.chdir(here)
    listening.close()
    sparse = {
        "sparse.webp": b"RIFF\xff\xff\xff\x7fWEBPVP8 ",
        "sparse.png": png()[:33] + struct.pack(">I", 2**31 - 1) + b"tEXt",
        "sparse.tiff": tiff(*page()),
        "sparse.jpg": b"\xff\xd8",
    }
    for name, head in sparse.items():
        (folder / name).write_bytes(head)
        os.truncate(folder / name, 1 << 38)
    return {
        "place-pipe": (folder / "pipe.png", "a pipe, socket or device"),
        "place-socket": (folder / "socket.png", "a pipe, socket or device"),
        "place-device": (folder / "zero.png", "a pipe, socket or device"),
        "place-loop": (folder / "loop.png", "cannot be opened"),
        "place-gone": (folder / "gone.png", "cannot be opened: No such file"),
        "place-folder": (folder / "folder.png", "it is a folder"),
        "place-nul": (Path(f"{folder}/a\0b.png"), "null"),
        "place-long": (folder / ("a" * 5_000), "cannot be opened"),
        "place-escape": (folder / "\x1b[2J.png", "cannot be opened"),
        "place-sparse-webp": (folder / "sparse.webp", "bytes of it would have to be read"),
        "place-sparse-png": (folder / "sparse.png", "bytes of it would have to be read|."),
        "place-sparse-tiff": (folder / "sparse.tiff", ""),
        "place-sparse-jpeg": (folder / "sparse.jpg", "."),
    }
