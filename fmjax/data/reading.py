"""A file that a decoder may read from, within bounds."""

from __future__ import annotations

import io
from typing import Any

from fmjax.errors import DataError

READS = 10_000  # calls for a header: a photograph's takes about 30
# of pixels, on average: chunks, strips and tiles of a few bytes are a way to burn time
BYTES_PER_READ = 64
BYTES_PER_PIXEL = 4  # that are read at most
BLOCK = 1 << 16
READ = io.BufferedReader.read


class Reader(io.BufferedReader):
    """Reads are counted: a header of crumbs, or of gigabytes, ends in DataError instead of minutes."""

    def __init__(self, raw: Any, size: int, max_pixels: int) -> None:
        super().__init__(raw)
        self.size = size
        self.max_bytes = self.bytes_left = BYTES_PER_PIXEL * max_pixels
        self.reads_left = READS

    def decoding(self, *, byte_by_byte: bool) -> None:
        """The header has been read. Pillow's decoders in Python may ask for one byte at a time."""
        self.bytes_left = self.max_bytes
        self.reads_left = READS + self.size // (1 if byte_by_byte else BYTES_PER_READ)

    def read(self, size: int | None = -1, /) -> bytes:
        # called dozens of times for a header, so that a lie about what is left is looked at only where it is large
        if size is None or size < 0 or size > BLOCK:
            size = max(
                min(self.size - self.tell(), self.size if size is None or size < 0 else size), 0
            )
        self.reads_left -= 1
        self.bytes_left -= size
        if self.bytes_left < 0:
            raise DataError(
                f"more than {self.max_bytes:,} bytes of it would have to be read; make it smaller"
            )
        if self.reads_left < 0:
            raise DataError("it is made of too many small pieces; save it again")
        return READ(self, size)

    def around(self, place: int, count: int) -> bytes:
        """Some bytes from a place, without moving."""
        back = self.tell()
        self.seek(max(place, 0))
        found = READ(self, count)
        self.seek(back)
        return found

    def count(self, needle: bytes, start: int) -> int:
        """How often two bytes occur from a place on, without moving."""
        back, found, last = self.tell(), 0, b""
        self.seek(start)
        while block := READ(self, 1 << 20):
            found += (last + block).count(needle)
            # the first of the two bytes may end this block
            last = block[-1:]
        self.seek(back)
        return found
