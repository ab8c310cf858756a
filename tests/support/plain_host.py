"""A plain host on the loopback: what its file is, how it is asked for, and the error where it cannot be had."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from fmjax.errors import CheckpointError, exit_code
from fmjax.specs import Source
from fmjax.store import locate
from tests.support.locate import legacy, weights
from tests.support.misbehaving_server import Server

CONTENT = legacy(b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(8000)))
OTHER = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])  # one bit
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PATH = "/models/vit.pt"


def url(server: Server, path: str = PATH, sha256: str | None = None) -> Source:
    return Source("url", server.base + path, path.rpartition("/")[2], "open_clip", sha256)


def refused(*sources: Source, **options) -> str:
    """The error: what to do, and below it the reason of each source, a line each."""
    with pytest.raises(CheckpointError) as caught:
        locate.obtain(weights(*sources), **options)
    assert exit_code(caught.value) == 4
    first, *reasons = str(caught.value).split("\n")
    assert len(first) < 250
    assert all(line.startswith("  ") and len(line) < 400 for line in reasons)
    return str(caught.value)


def files(cache: Path) -> list[str]:
    """What is in the folder of fetched files."""
    return [str(p.relative_to(cache)) for p in (cache / "files").rglob("*") if p.is_file()]
