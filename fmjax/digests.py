"""What the content of a file must be: the sha256 that is published, or the one that its first use recorded."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmjax.fetch import Copy
from fmjax.specs import Source

IN_ADDRESS = re.compile(r"/([0-9a-f]{64})/[^/]+$")  # OpenAI's addresses
IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth?$")  # torch.hub's convention: the first eight digits


def sha256(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def published(source: Source) -> str | None:
    """The sha256 that is published: in the row, or in the address."""
    found = IN_ADDRESS.search(source.location) if source.kind == "url" else None
    return source.sha256 or (found[1] if found else None)


def wrong(digest: str, source: Source, copy: Copy, known: Mapping[str, Any]) -> str:
    """What speaks against a digest, as a clause; "" where nothing does. known: the record of the first use."""
    whole, digits = published(source), IN_NAME.search(source.filename)
    if whole and digest != whole:
        return f"sha256 {digest} is not the published {whole}"
    if digits and not digest.startswith(digits[1]):
        return f"sha256 {digest} does not begin with the {digits[1]} of its name"
    if copy.sha256 and digest != copy.sha256:
        return f"sha256 {digest} is not the {copy.sha256} that the hub names"
    if changed(digest, source, known):
        return f"sha256 {digest} is not the {known['sha256']} recorded on {known.get('first_used', 'the first use')}"
    return ""


def changed(digest: str, source: Source, known: Mapping[str, Any]) -> bool:
    """Whether it is only the record that speaks against a digest: a published sha256 is stronger."""
    return not published(source) and bool(known.get("sha256")) and known["sha256"] != digest
