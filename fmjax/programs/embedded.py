"""A finished file of embeddings: what it says it is of, by which the same command run again has nothing left to do."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from fmjax.engine.reruns import differences
from fmjax.errors import UsageError, escaped

Record = dict[str, Any]
KEY = "fmjax"  # of a parquet file's metadata, whose other keys are other writers'


def record_of(path: Path) -> Record | None:
    """The record of a file that `fmjax embed` has finished; None for any other file, a damaged one, and where there is
    none."""
    read = READERS.get(path.suffix)
    if read is None or not path.is_file():
        return None
    # who wrote a file is not known before it is read: whatever cannot be is somebody else's
    try:
        found = read(path)
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None


def check_made(out: str, made: Record, record: Record) -> None:
    """Raises UsageError, with what differs, where a finished file is of anything else than is asked for."""
    # as JSON has it, in which tuples are lists: what is compared is what was written
    changed = differences(made, json.loads(json.dumps(record)))
    if changed:
        raise UsageError(
            f"--out {out!r} exists, of other settings or images ({escaped('; '.join(changed[:3]), 300)}); pass --force "
            f"to replace it, or name another file"
        )


def _npz(path: Path) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            return json.loads(archive.comment)
    except zipfile.BadZipFile as error:
        raise ValueError(path) from error


def _parquet(path: Path) -> Any:
    import pyarrow.parquet as pq

    # what is no parquet file raises a ValueError of arrow's own
    return json.loads((pq.read_metadata(path).metadata or {})[KEY.encode()])


def _safetensors(path: Path) -> Any:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            facts = file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(path) from error
    return {name: json.loads(facts[name]) for name in ("model", "preprocessing", "images")}


READERS = {".npz": _npz, ".parquet": _parquet, ".safetensors": _safetensors}
