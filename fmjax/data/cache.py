"""What is read of a set once and kept: arrays in fmjax's cache folder, used again only while the set is the same."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.store.record import cache_place
from weights_conversion.writer import whole

Arrays = dict[str, np.ndarray]
KEY = "key"  # the array that says what the others are of
LAYOUT = 1  # of what is kept: another one is built anew


def state_of(path: str | Path) -> list[int]:
    """What of a file changes when its content does: size, and when it and its entry were changed, in nanoseconds.
    Raises OSError where there is none."""
    status = os.stat(path)
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def kept(kind: str, key: Mapping[str, Any], build: Callable[[], Arrays]) -> Arrays:
    """Arrays that were built before for the same key, or are built now and kept.

    key: all that they depend on, as JSON has it, the state of the files above all. Nothing that is wrong with the cache
    is an error: a damaged file is built anew, and a folder that cannot be written keeps nothing.
    """
    text = json.dumps({"kind": kind, "layout": LAYOUT, **key}, sort_keys=True)
    path = cache_place(kind, text, ".npz")
    found = _read(path, text)
    if found is None:
        found = build()
        _write(path, text, found)
    return found


def _read(path: Path, text: str) -> Arrays | None:
    try:
        # no pickles: nothing in a file can run
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            found = dict(arrays)
    except (OSError, ValueError, LookupError, EOFError, MemoryError, zipfile.BadZipFile):
        return None
    return found if found.pop(KEY, np.zeros(0, np.uint8)).tobytes() == text.encode() else None


def _write(path: Path, text: str, arrays: Arrays) -> None:
    key = np.frombuffer(text.encode(), np.uint8)
    # of this process alone until it is whole: several may start on one machine at once
    own = path.with_name(f"{path.stem}.{os.getpid()}.npz")
    try:
        with whole(own) as file:
            np.savez(file, **arrays, key=key)  # pyright: ignore[reportArgumentType]
        os.replace(own, path)
    except OSError:
        return
