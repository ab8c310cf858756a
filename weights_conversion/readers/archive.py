"""Zip archives as tables of byte ranges: every entry is checked against the file before any of it is read."""

from __future__ import annotations

import os
import posixpath
import struct
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from io import BufferedIOBase
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np

from weights_conversion.errors import CheckpointError, quoted, shown
from weights_conversion.readers.common import map_bytes

# 10,000 tensors and what lies beside them; listing them takes a tenth of a second
MAX_ENTRIES = 12_000
MAX_DIRECTORY_BYTES = 4 << 20  # MAX_ENTRIES names of 300 characters
MAX_RATIO = 4  # of deflated entries together; trained weights reach 1.1, text about 10
# inflated on top of that: all-zero biases and pickles shrink further, and are small
SPARE_BYTES = 64 << 20
# of inflated entries; whatever a small file may inflate to stays, so none is inflated twice
KEPT_BYTES = 96 << 20
MAX_TIMES = 64  # that the entries are inflated, all together: eight devices that each take the three parts of a tensor
PIECE = 1 << 20  # bytes read at a time for a checksum: stays in the processor's cache

END, END64, LOCATOR64, ENTRY, LOCAL = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
END_FIELDS = struct.Struct("<4s4H2IH")
END64_FIELDS = struct.Struct("<4sQ2H2I4Q")
LOCATOR64_FIELDS = struct.Struct("<4sIQI")
ENTRY_FIELDS = struct.Struct("<4s6H3I5H2I")
LOCAL_FIELDS = struct.Struct("<4s5H3I2H")
STORED, DEFLATED = 0, 8
ENCRYPTED, UTF8 = 1, 1 << 11
FULL16, FULL32 = 0xFFFF, 0xFFFFFFFF  # "see the zip64 record"


@dataclass(frozen=True, slots=True)
class Member:
    """One entry: where its bytes start, how many there are in the file and after inflating, and their CRC-32."""

    name: str
    start: int
    packed: int
    size: int
    crc: int
    deflated: bool


@dataclass
class Archive:
    """The entries of a zip file by name. `has_crcs` is false where the file was written without checksums, which torch
    does on request and which sets all of them to zero."""

    path: Path
    members: Mapping[str, Member]
    has_crcs: bool
    _intact: set[str] = field(default_factory=set)
    _inflated: OrderedDict[str, np.ndarray] = field(default_factory=OrderedDict)
    _kept: int = 0  # bytes in it
    _spent: int = 0  # bytes that were inflated so far
    _lock: Lock = field(default_factory=Lock)

    def bytes_of(self, name: str, start: int = 0, nbytes: int | None = None) -> np.ndarray:
        """Some bytes of an entry, mapped where it is stored as it is.

        The first call for an entry reads all of it once, to compare its checksum. A deflated entry is inflated whole;
        the last ones are kept, as a tensor is read in many slices.
        """
        member = self.members[name]
        nbytes = member.size - start if nbytes is None else nbytes
        if nbytes == 0:
            return np.empty(0, np.uint8)
        if member.deflated:
            return self._inflate(member)[start : start + nbytes]
        # zip keeps a sum for a whole entry, so a slice alone could not be checked
        if name not in self._intact:
            self._check(member, _crc(self.path, member))
        return map_bytes(self.path, member.start + start, nbytes)

    def head(self, name: str, nbytes: int) -> bytes:
        """The first bytes of an entry, unchecked."""
        member = self.members[name]
        with self.path.open("rb") as file:
            file.seek(member.start)
            data = file.read(min(member.packed, nbytes))
        return (
            _inflated(data, nbytes, f"has the entry {quoted(name)}, which")[0]
            if member.deflated
            else data
        )

    def _inflate(self, member: Member) -> np.ndarray:
        """All of a deflated entry. Tensors may lie in a few large ones by turns, not to be inflated each time."""
        found = self._inflated.get(member.name)
        if found is not None:
            return found
        # spent before the work is done: a file that asks for it without end is stopped
        self._spend(member.size)
        packed = np.empty(0, np.uint8)
        if member.packed:  # nothing cannot be mapped
            packed = map_bytes(self.path, member.start, member.packed)
        subject = f"{shown(self.path)}: {quoted(member.name)}"
        data, ended = _inflated(packed.data, member.size, subject)
        if len(data) != member.size or not ended:
            raise CheckpointError(f"{subject} does not inflate to the size that it states")
        self._check(member, zlib.crc32(data))
        found = np.frombuffer(data, np.uint8)
        self._keep(member.name, found)
        return found

    @cached_property
    def _deflated_bytes(self) -> int:
        return sum(m.size for m in self.members.values() if m.deflated)

    def _spend(self, nbytes: int) -> None:
        self._spent += nbytes
        if self._spent > MAX_TIMES * self._deflated_bytes:
            raise CheckpointError(
                f"{shown(self.path)} was inflated {MAX_TIMES} times over; save it without compression"
            )

    def _keep(self, name: str, data: np.ndarray) -> None:
        """Puts an entry in the place of the oldest ones, as far as they are too many bytes."""
        with self._lock:
            if name in self._inflated:  # another thread was as fast
                return
            self._inflated[name] = data
            self._kept += data.nbytes
            while self._kept > KEPT_BYTES and len(self._inflated) > 1:
                self._kept -= self._inflated.popitem(last=False)[1].nbytes

    def _check(self, member: Member, crc: int) -> None:
        if self.has_crcs and crc != member.crc:
            raise CheckpointError(
                f"{shown(self.path)} is damaged: the bytes of {quoted(member.name)} have the checksum {crc:08x}, "
                f"{member.crc:08x} was written; fetch or copy the file again"
            )
        self._intact.add(member.name)


def open_archive(path: Path) -> Archive:
    """The entries of the zip file at `path`.

    Raises CheckpointError for a file that is cut short, for entries that are encrypted, packed in a way other than
    stored or deflated, doubled, overlapping, outside the file or outside its folder, and for bombs.
    """
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        # as the directory says, which readers go by; what lies elsewhere in the file is no entry
        start, nbytes, count = _directory(file, size)
        file.seek(start)
        entries = _entries(file.read(nbytes), count)
        members = [_located(file, entry, start) for entry in entries]
    _check_names([m.name for m in members])
    _check_ranges([(entry.offset, m) for entry, m in zip(entries, members, strict=True)])
    _check_ratio(members)
    return Archive(path, {m.name: m for m in members}, any(m.crc for m in members))


@dataclass(frozen=True, slots=True)
class _Entry:
    raw: bytes
    name: str
    method: int
    crc: int
    packed: int
    size: int
    offset: int


def _directory(file: BufferedIOBase, size: int) -> tuple[int, int, int]:
    """Where the central directory starts, its bytes, and how many entries it lists."""
    tail_start = max(0, size - END_FIELDS.size - FULL16)
    file.seek(tail_start)
    tail = file.read()
    at = tail.rfind(END)
    if at < 0 or len(tail) - at < END_FIELDS.size:
        raise CheckpointError(
            f"is a zip file cut short ({size:,} bytes, and no directory at its end); fetch it again"
        )
    # a comment may stand behind the record, and could hold another one: it must reach to the end of the file
    _, disk, _, here, count, nbytes, start, comment = END_FIELDS.unpack_from(tail, at)
    end = tail_start + at
    if disk or here != count or at + END_FIELDS.size + comment != len(tail):
        raise CheckpointError(
            "has a zip directory that does not end where the file does; fetch it again"
        )
    if tail[max(0, at - LOCATOR64_FIELDS.size) : at].startswith(LOCATOR64):
        end, start, nbytes, count = _directory64(
            file, end - LOCATOR64_FIELDS.size, (start, nbytes, count)
        )
    if start + nbytes != end:
        raise CheckpointError("has a zip directory that is not where it says; fetch it again")
    if count > MAX_ENTRIES or nbytes > MAX_DIRECTORY_BYTES:
        raise CheckpointError(
            f"lists {count:,} zip entries in {nbytes:,} bytes; {MAX_ENTRIES:,} are read at most"
        )
    return start, nbytes, count


def _directory64(
    file: BufferedIOBase, locator: int, short: tuple[int, int, int]
) -> tuple[int, int, int, int]:
    """The same from the zip64 records, preceded by where they start; they must agree with the short record's values."""
    file.seek(locator)
    # the locator stands right before the short record, and the zip64 record right before the locator
    _, _, end, _ = LOCATOR64_FIELDS.unpack(file.read(LOCATOR64_FIELDS.size))
    if end + END64_FIELDS.size != locator:
        raise CheckpointError("has a zip64 directory that is not where it says; fetch it again")
    file.seek(end)
    mark, _, _, _, _, _, here, count, nbytes, start = END64_FIELDS.unpack(
        file.read(END64_FIELDS.size)
    )
    known = [(count, short[2], FULL16), (nbytes, short[1], FULL32), (start, short[0], FULL32)]
    if mark != END64 or here != count or any(b not in (a, full) for a, b, full in known):
        raise CheckpointError("has two zip directories that contradict each other; fetch it again")
    return end, start, nbytes, count


def _entries(data: bytes, count: int) -> list[_Entry]:
    """The rows of a central directory."""
    found, at = [], 0
    while at < len(data):
        if (
            len(data) - at < ENTRY_FIELDS.size
            or not data.startswith(ENTRY, at)
            or len(found) == count
        ):
            raise CheckpointError("has a damaged zip directory; fetch it again")
        fields = ENTRY_FIELDS.unpack_from(data, at)
        at += ENTRY_FIELDS.size
        # the name, the extra field and the comment follow in this order, each of its own length
        name_end = at + fields[10]
        extra_end = name_end + fields[11]
        raw, extra = data[at:name_end], data[name_end:extra_end]
        at = extra_end + fields[12]
        found.append(_entry(raw, extra, fields))
    if len(found) != count or at != len(data):
        raise CheckpointError(
            f"lists {len(found):,} zip entries where {count:,} are announced; fetch it again"
        )
    return found


def _entry(raw: bytes, extra: bytes, fields: tuple[Any, ...]) -> _Entry:
    """One row of the directory. Raises CheckpointError where its bytes could not be read as they are."""
    # by their places in ENTRY_FIELDS; the date, the disk and the attributes between them say nothing here
    flags, method, crc = fields[3], fields[4], fields[7]
    packed, size, offset = fields[8], fields[9], fields[16]
    try:
        name = raw.decode("utf-8" if flags & UTF8 else "cp437")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"has a zip entry whose name is no text: {error}") from error
    if flags & ENCRYPTED:
        raise CheckpointError(
            f"is encrypted ({quoted(name)}); decrypt it with the tool that wrote it, then pass the result"
        )
    if method not in (STORED, DEFLATED):
        raise CheckpointError(
            f"has {quoted(name)} packed by method {method}; only stored and deflated entries are read"
        )
    size, packed, offset = _widened(extra, (size, packed, offset))
    if method == STORED and packed != size:
        raise CheckpointError(
            f"has {quoted(name)} stored in {packed:,} bytes but {size:,} long; the file is damaged"
        )
    return _Entry(raw, name, method, crc, packed, size, offset)


def _widened(extra: bytes, values: tuple[int, int, int]) -> tuple[int, int, int]:
    """The values, those that are too large for 32 bits taken from the zip64 part of the extra field."""
    if FULL32 not in values:
        return values
    wide: list[int] = []
    while len(extra) >= 4 and not wide:
        kind, length = struct.unpack_from("<2H", extra)
        if kind == 1:
            wide = [n for (n,) in struct.iter_unpack("<Q", extra[4 : 4 + length - length % 8])]
        extra = extra[4 + length :]
    if len(wide) < values.count(FULL32):
        raise CheckpointError("has a zip entry whose zip64 sizes are missing; fetch it again")
    # the field holds, in this order, only those of the values that did not fit
    size, packed, offset = values
    if size == FULL32:
        size = wide.pop(0)
    if packed == FULL32:
        packed = wide.pop(0)
    if offset == FULL32:
        offset = wide.pop(0)
    return size, packed, offset


def _located(file: BufferedIOBase, entry: _Entry, end: int) -> Member:
    """The entry's data, by the header in front of it, which must tell the same as the directory."""
    # a reader that goes by the directory and one that goes by the headers must find the same archive
    if entry.offset + LOCAL_FIELDS.size > end:
        raise CheckpointError(f"has {quoted(entry.name)} beyond its own end; fetch it again")
    file.seek(entry.offset)
    header = file.read(LOCAL_FIELDS.size + len(entry.raw))
    if len(header) < LOCAL_FIELDS.size + len(entry.raw):
        raise CheckpointError(f"has {quoted(entry.name)} beyond its own end; fetch it again")
    mark, _, _, method, _, _, _, _, _, length, extra = LOCAL_FIELDS.unpack_from(header)
    name = header[LOCAL_FIELDS.size :]
    if (mark, method, length, name) != (LOCAL, entry.method, len(entry.raw), entry.raw):
        raise CheckpointError(
            f"has another entry where its directory places {quoted(entry.name)}; fetch it again"
        )
    start = entry.offset + LOCAL_FIELDS.size + length + extra
    if start + entry.packed > end:
        raise CheckpointError(f"has {quoted(entry.name)} beyond its own end; fetch it again")
    return Member(entry.name, start, entry.packed, entry.size, entry.crc, entry.method == DEFLATED)


def _check_names(names: list[str]) -> None:
    """Raises CheckpointError for names outside the archive's own folder, and for two of one name."""
    for name in names:
        if not _is_inside(name):
            raise CheckpointError(
                f"has a zip entry called {quoted(name)}, which leaves the archive; do not trust it"
            )
    # a reader that takes the first of two and one that takes the last see different weights
    if len({posixpath.normpath(name) for name in names}) != len(names):
        raise CheckpointError(
            "has two zip entries of one name, so what it holds depends on the reader; do not trust it"
        )


def _is_inside(name: str) -> bool:
    """Whether an entry's name stays in the folder that an archive would be unpacked to, on any system."""
    plain = name.removesuffix("/")
    if not plain or plain.startswith("/") or "\\" in name or "\0" in name:
        return False
    return ".." not in plain.split("/")


def _check_ranges(members: list[tuple[int, Member]]) -> None:
    """Raises CheckpointError where two entries share bytes, which bombs are made of."""
    end = 0
    for offset, member in sorted(members, key=lambda row: row[0]):
        if offset < end:
            raise CheckpointError(
                f"has zip entries that overlap at {quoted(member.name)}; do not trust it"
            )
        end = member.start + member.packed


def _check_ratio(members: list[Member]) -> None:
    """Raises CheckpointError for a bomb: entries that inflate to far more than the file's own size."""
    deflated = [member for member in members if member.deflated]
    packed = sum(member.packed for member in deflated)
    size = sum(member.size for member in deflated)
    if size > MAX_RATIO * packed + SPARE_BYTES:
        raise CheckpointError(
            f"would inflate from {packed:,} to {size:,} bytes, more than {MAX_RATIO} times; save it without compression"
        )


def _crc(path: Path, member: Member) -> int:
    """The checksum of an entry's bytes in the file, read piece by piece into one buffer."""
    # read into one buffer, as mapped pages of a large entry would count as memory of the process
    crc, left = 0, member.packed
    buffer = memoryview(bytearray(min(PIECE, member.packed)))
    try:
        with path.open("rb", buffering=0) as file:
            file.seek(member.start)
            while left and (n := file.readinto(buffer[: min(left, PIECE)])):
                crc = zlib.crc32(buffer[:n], crc)
                left -= n
    except OSError as error:
        raise CheckpointError(
            f"{shown(path)} can no longer be read: {error}; open it again"
        ) from error
    return crc


def _inflated(packed: bytes | memoryview, size: int, subject: str) -> tuple[bytes, bool]:
    """The first `size` bytes, and whether the stream holds no more."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)  # negative: zip keeps no header of zlib's
    try:
        data = stream.decompress(packed, size) if size else b""
        return data, stream.eof or not stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise CheckpointError(
            f"{subject} does not inflate: {error}; fetch the file again"
        ) from error
