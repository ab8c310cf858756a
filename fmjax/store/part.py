"""The part of a file that has been fetched: PATH.part, and PATH.part.json with what is needed to go on from there."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from fmjax.serial import write_atomically

# the first byte, the size of all
RANGE = re.compile(r"bytes (?:([0-9]{1,18})-[0-9]{1,18}|\*)/([0-9]{1,18}|\*)")
LENGTH = re.compile(r"[0-9]{1,18}")
NOTE_BYTES = 16 << 20  # how often the note is written: what a kill may lose
PIECE = 1 << 20  # bytes hashed at a time


class Part:
    """Bytes on disk, how many there will be (None: not known), and the validator that names the content at its host.

    To be used in a `with` while bytes are added. The note holds the sha256 of the bytes, so that a part which was
    damaged or written by something else is never gone on from.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.total: int | None = None
        self.validator = ""
        self.size = 0
        self._digest = hashlib.sha256()
        self._file: BinaryIO | None = None
        self._noted_size = 0
        self._recall()

    @property
    def whole(self) -> bool:
        return self.size > 0 and self.total in (None, self.size)

    @property
    def complete(self) -> bool:
        """Whether all bytes are there that were said to come."""
        return self.size == self.total

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        total = "an unknown number of" if self.total is None else f"{self.total:,}"
        return f"{self.size:,} of {total} bytes"

    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest, if the content is still the one that the part is of."""
        if not self.size or not self.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Makes the part end where the bytes of this answer begin; False where they are not the ones asked for."""
        if status == 206 and self._goes_on(headers):
            return True
        # 200 is the whole file, whatever was asked for: what is there is of no use
        self.clear()
        if status != 200:
            return False
        length = headers.get("Content-Length", "").strip()
        self.total = int(length) if LENGTH.fullmatch(length) else None
        self.validator = _validator(headers)
        return True

    def __enter__(self) -> Part:
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # also where a try has failed: the note is what the next one goes on from
        file, self._file = self._file, None
        if file:
            file.close()
        if self.size:
            self._write_note()
        else:
            self.path.unlink(missing_ok=True)

    def add(self, chunk: bytes) -> None:
        """Writes the next bytes."""
        if self._file is None:
            raise RuntimeError("a part is added to in a `with`")
        self._file.write(chunk)
        self._digest.update(chunk)
        self.size += len(chunk)
        # the bytes before the note, which must not promise what a kill would take away
        if self.size - self._noted_size >= NOTE_BYTES:
            self._file.flush()
            self._write_note()

    def clear(self) -> None:
        """Forgets the part."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total = "", None
        self.size, self._noted_size, self._digest = 0, 0, hashlib.sha256()

    def finish(self) -> None:
        """Moves the part into place."""
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def _goes_on(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer has the rest of this very content: a server may send another's, whatever was asked."""
        found = RANGE.fullmatch(headers.get("Content-Range", ""))
        if not found or not self.size or found[1] != str(self.size):
            return False
        total = None if found[2] == "*" else int(found[2])
        if self.total is not None and total != self.total:
            return False
        given = _validator(headers)
        # bytes of two contents must never be joined
        if given != self.validator and (given or self.validator.startswith('"')):
            return False  # a date need not be sent again, an ETag must be (RFC 9110 sec. 15.3.7)
        self.total = total
        return True

    def _recall(self) -> None:
        """Takes up the bytes that the note is about, where they still are what was written, and drops what follows
        them; else forgets the part."""
        noted = self._noted()
        digest = _hashed(self.path, noted["size"]) if noted else None
        if not noted or digest is None or digest.hexdigest() != noted["sha256"]:
            self.clear()
            return
        # bytes behind the note were written, but are not in its digest
        os.truncate(self.path, noted["size"])
        self.size, self._noted_size, self._digest = noted["size"], noted["size"], digest
        self.total, self.validator = noted["total"], noted["validator"]

    def _noted(self) -> dict[str, Any] | None:
        try:
            noted = json.loads(self.note.read_text())
            right = type(noted["size"]) is int and noted["size"] > 0
            right &= noted["total"] is None or type(noted["total"]) is int
            right &= all(isinstance(noted[key], str) for key in ("sha256", "validator"))
            return noted if right and noted["validator"].isprintable() else None
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def _write_note(self) -> None:
        facts = {"validator": self.validator, "total": self.total, "size": self.size}
        write_atomically(self.note, json.dumps(facts | {"sha256": self._digest.hexdigest()}) + "\n")
        self._noted_size = self.size


def _validator(headers: Mapping[str, str]) -> str:
    """What names the content: a strong ETag, else the date."""
    etag = headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")


def _hashed(path: Path, size: int) -> Any:
    """The sha256 object of the first `size` bytes, None where there are not so many."""
    digest, left = hashlib.sha256(), size
    try:
        with path.open("rb") as file:
            while left and (piece := file.read(min(left, PIECE))):
                digest.update(piece)
                left -= len(piece)
    except FileNotFoundError:
        return None
    return None if left else digest
