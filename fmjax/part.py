"""The part of a file that has been fetched: PATH.part, and PATH.part.json with what is needed to go on from there."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

RANGE = re.compile(r"bytes (?:(\d+)-\d+|\*)/(\d+|\*)")  # of a Content-Range header: the first byte, the size of all


class Part:
    """Bytes on disk, how many there will be (None: not known), and the validator that names the content at its host."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.path = target.with_name(target.name + ".part")
        self.note = target.with_name(target.name + ".part.json")
        self.total: int | None = None
        self.validator = self._noted()

    @property
    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    @property
    def whole(self) -> bool:
        return self.size > 0 and self.total in (None, self.size)

    @property
    def progress(self) -> str:
        """How far it is, in words."""
        return f"{self.size:,} of {'an unknown number of' if self.total is None else f'{self.total:,}'} bytes"

    def wanted(self) -> dict[str, str]:
        """The headers that ask for the rest, if the content is still the one that the part is of."""
        if not self.size or not self.validator:
            return {}
        return {"Range": f"bytes={self.size}-", "If-Range": self.validator}

    def begin(self, status: int, headers: Mapping[str, str]) -> bool:
        """Makes the part end where the bytes of this answer begin; False where they are not the ones asked for."""
        found = RANGE.match(headers.get("Content-Range", ""))
        if status == 206 and found and found[1] == str(self.size):
            self.total = int(found[2]) if found[2].isdigit() else None
            return True
        self.clear()
        if status != 200:
            return False
        length, etag = headers.get("Content-Length", ""), headers.get("ETag", "")
        self.total = int(length) if length.isdigit() else None
        self.validator = etag if etag and not etag.startswith("W/") else headers.get("Last-Modified", "")
        self.target.parent.mkdir(parents=True, exist_ok=True)
        self.note.write_text(json.dumps({"validator": self.validator}) + "\n")
        return True

    def open(self) -> BinaryIO:
        """The file, to add to."""
        return self.path.open("ab")

    def clear(self) -> None:
        """Forgets the part."""
        self.path.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)
        self.validator, self.total = "", None

    def finish(self) -> None:
        """Moves the part into place."""
        os.replace(self.path, self.target)
        self.note.unlink(missing_ok=True)

    def _noted(self) -> str:
        try:
            return str(json.loads(self.note.read_text())["validator"])
        except (OSError, ValueError, KeyError, TypeError):
            return ""
