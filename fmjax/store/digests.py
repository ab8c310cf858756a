"""What the content of a file must be: the sha256 that is published, or the one that its first use recorded."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fmjax.errors import CheckpointError
from fmjax.specs import Source
from fmjax.store import record
from fmjax.store.http import Copy
from weights_conversion.readers import sniff
from weights_conversion.readers.archive import open_archive
from weights_conversion.readers.safetensors import read_safetensors

IN_ADDRESS = re.compile(r"/([0-9a-f]{64})/[^/]+$")  # OpenAI's addresses
IN_NAME = re.compile(r"-([0-9a-f]{8})\.pth?$")  # torch.hub's convention: the first eight digits
SMALL = 8 << 20  # bytes; hashed in 10 ms, which is what looking it up and noting it takes
TICK_NS = 2_000_000_000  # the coarsest step of a file system's times: a later change shows in them


def sha256(path: Path, *, anew: bool = False) -> str:
    """The digest of a file's content. A large file is hashed when its size, times or inode are not those of the last
    time, or `anew`: where it may have been changed without a trace, as by a failing disk."""
    target = path.resolve()  # the hub's cache holds links
    before = _stamp(target)
    if before[0] <= SMALL:
        return _hashed(target)
    noted = record.seen(target)
    if not anew and _holds(noted, before):
        return noted["sha256"]
    started = time.time_ns()
    digest = _hashed(target)
    # one that was written just now may be written again within the same tick of its times
    if before == _stamp(target) and started - max(before[1:3]) > TICK_NS:
        record.remember(target, {"sha256": digest, "stamp": before})
    elif noted is not None:
        record.remember(target, None)
    return digest


def published(source: Source) -> str | None:
    """The sha256 that is published: in the row, or in the address."""
    found = IN_ADDRESS.search(source.location) if source.kind == "url" else None
    return source.sha256 or (found[1] if found else None)


def wrong(digest: str, source: Source, copy: Copy, known: Mapping[str, Any]) -> str:
    """What speaks against a file of that digest, as a clause; "" where nothing does. known: the record of the first
    use, on which the hub's name for the content and the content itself are looked at."""
    # the strongest first: what is published, what the hub names, what was recorded
    whole, digits = published(source), IN_NAME.search(source.filename)
    if whole and digest != whole:
        return f"sha256 {digest} is not the published {whole}"
    if digits and not digest.startswith(digits[1]):
        return f"sha256 {digest} does not begin with the {digits[1]} of its name"
    if _names_other(copy.etag, digest):
        return f"sha256 {digest} is not the {copy.etag} that the hub names"
    if changed(digest, source, known):
        when = known.get("first_used", "the first use")
        return f"sha256 {digest} is not the {known['sha256']} recorded on {when}"
    if whole or known.get("sha256"):
        return ""
    # nothing else is known of it: a short ETag is git's sha1, and what is left is whether it holds weights
    if copy.etag and len(copy.etag) < len(digest) and copy.etag not in _sha1s(copy.path):
        return f"its sha1 is not the {copy.etag} that the hub names"
    return no_weights(copy.path)


def _names_other(etag: str | None, digest: str) -> bool:
    """Whether the hub's name of a content is a sha256, and another one."""
    return etag is not None and len(etag) == len(digest) and digest != etag


def changed(digest: str, source: Source, known: Mapping[str, Any]) -> bool:
    """Whether it is only the record that speaks against a digest: a published sha256 is stronger."""
    return not published(source) and bool(known.get("sha256")) and known["sha256"] != digest


def no_weights(path: Path) -> str:
    """What a file is instead of weights, as a clause; "" for a safetensors file with a whole header, a zip with a whole
    directory, and what begins as torch's older files do."""
    try:
        kind = sniff.container(path)
        if kind == sniff.SAFETENSORS:
            # the readers themselves decide: their refusal is the reason, in words that a person can act on
            read_safetensors(path)
        if kind == sniff.ZIP:
            open_archive(path)
    except CheckpointError as error:
        return f"it {error}"
    return ""


def _hashed(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _holds(noted: Any, stamp: list[int]) -> bool:
    """Whether what was noted of a file is of the file as it is now."""
    return (
        isinstance(noted, dict) and noted.get("stamp") == stamp and _is_digest(noted.get("sha256"))
    )


def _stamp(path: Path) -> list[int]:
    """What changes with the content of a file: the time of the inode's own change cannot be set by a program."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _is_digest(text: Any) -> bool:
    return isinstance(text, str) and record.SHA256.fullmatch(text) is not None


def _sha1s(path: Path) -> tuple[str, str]:
    """git's name of a content (the sha1 of a header and it), and its plain sha1, which some mirrors name it by."""
    size = path.stat().st_size
    digests = (
        hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False),
        hashlib.sha1(usedforsecurity=False),
    )
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            for digest in digests:
                digest.update(piece)
    return digests[0].hexdigest(), digests[1].hexdigest()
