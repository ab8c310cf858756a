"""The list of a step's files, with a digest of each: written beside them before the step counts, compared before it is
read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import xxhash

from fmjax.serial import write_atomically

MANIFEST = "manifest.json"
# of the step itself: written when all else is whole
LATER = (MANIFEST, "_CHECKPOINT_METADATA", "commit_success.txt")
PART = 16 * 2**20  # bytes that are read at a time


def write(step: Path) -> None:
    """Lists the files of a step, all of which must be whole."""
    files = {name: [path.stat().st_size, _digest(path)] for name, path in _files(step).items()}
    # a digest of the list itself: a flip in it is no other file
    record = {"files": files, "digest": _of_list(files)}
    write_atomically(step / MANIFEST, json.dumps(record))


def exists(step: Path) -> bool:
    """Whether a step has a list; those of older versions have none."""
    return (step / MANIFEST).is_file()


def flaw(step: Path, items: Sequence[str] = ()) -> str:
    """What has changed since a step was written, in words that name a file; "" where nothing has.

    items: folders of the step, to look at no others.
    """
    listed = _listed(step)
    if listed is None:
        return f"{MANIFEST} is damaged"
    found = _files(step)
    listed = {
        name: entry for name, entry in listed.items() if not items or name.split("/")[0] in items
    }

    # names and sizes first, which cost nothing
    for name, (size, _) in listed.items():
        if name not in found:
            return f"{name} is missing"
        if found[name].stat().st_size != size:
            return f"{name} has {found[name].stat().st_size:,} bytes, where {size:,} were written"
    return next(
        (
            f"{name} has other bytes than were written"
            for name, (_, digest) in listed.items()
            if _digest(found[name]) != digest
        ),
        "",
    )


def _listed(step: Path) -> dict[str, list] | None:
    """Name -> size and digest, as they were written; None where the list is not what was written."""
    try:
        record = json.loads((step / MANIFEST).read_bytes())
        files, digest = record["files"], record["digest"]
    except (ValueError, KeyError, TypeError, OSError):
        return None
    # the list has a digest of its own, or a damaged list would blame whole files
    return files if isinstance(files, dict) and digest == _of_list(files) else None


def _of_list(files: dict[str, list]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(files, sort_keys=True).encode())


def _files(step: Path) -> dict[str, Path]:
    """Name in the step -> path, of every file but the list."""
    # whatever is there, in the order of names: two lists of one step are alike
    found = [Path(folder, name) for folder, _, names in os.walk(step) for name in names]
    named = {path.relative_to(step).as_posix(): path for path in found}
    return {name: path for name, path in sorted(named.items()) if name not in LATER}


def _digest(path: Path) -> str:
    """XXH3 of 64 bits: many times as fast as a cryptographic one, which is not needed against accidents."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while part := file.read(PART):
            digest.update(part)
    return digest.hexdigest()
