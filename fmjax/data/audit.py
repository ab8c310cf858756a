"""What a person must know of a set of images before believing a score: what is left out, and what is there twice."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fmjax.data.example import Examples, Splits
from fmjax.data.folders import LeftOut
from fmjax.data.images import regular_file
from fmjax.errors import DataError, escaped

MOST_FILES = 200_000  # of both parts together, whose sizes are looked at
MOST_BYTES = 500_000_000  # that are read to prove that files are alike
HEAD = 4096  # bytes that are compared first


def lines(splits: Splits, train: Examples, val: Examples | None) -> list[str]:
    """One line each: what of the source is left out, how it was read, and what val shares with train."""
    out = [left_out_line(splits.left_out)] if splits.left_out else []
    out += [*splits.notes, linked_line(train)]
    if val is not None:
        out += [linked_line(val), shared_line(train, val)]
    return [line for line in out if line]


def left_out_line(rows: Sequence[LeftOut]) -> str:
    """Counts and reasons of all that is not used, with an example each."""
    told = [f"{row.count:,} {row.reason} ({escaped(row.example, 60)})" for row in rows]
    return f"left out: {', '.join(told)}"


def shared_line(train: Examples, val: Examples) -> str:
    """That files of val are in train too, byte for byte; "" where none is.

    Only sizes that occur on both sides are read, their first 4 KB first. Of more than 200,000 files every n-th is
    compared, and at most 500 MB are read; where a bound was met, the number is said to be a lower one.
    """
    pairs, complete = shared(train.files, val.files)
    if not pairs:
        return ""
    there, here = pairs[0]
    number = f"{len(pairs):,}" if complete else f"at least {len(pairs):,}"
    return (
        f"{number} of {len(val):,} val images are in train too, byte for byte ({_short(here)} is {_short(there)}): "
        f"the val scores count images that were trained on"
    )


def linked_line(examples: Examples) -> str:
    """That one file is in two classes, by links of any kind; "" where none is."""
    seen: dict[tuple[int, int], int] = {}
    twice = []
    for number, path in enumerate(examples.files[:MOST_FILES]):
        status = _status(path)
        if status is None:
            continue
        # links of both kinds: device and inode are those of the file behind them
        first = seen.setdefault((status.st_dev, status.st_ino), number)
        if examples.labels[first] != examples.labels[number]:
            twice.append((examples.files[first], path))
    if not twice:
        return ""
    one, other = (_short(path) for path in twice[0])
    return (
        f"{len(twice):,} images are in two classes, by links ({other} is {one}): one label is wrong"
    )


def _short(path: Path) -> str:
    return escaped(os.path.join(*path.parts[-3:]), 60)


def shared(train: Sequence[Path], val: Sequence[Path]) -> tuple[list[tuple[Path, Path]], bool]:
    """((path in train, path in val) of files with the same content, whether all files could be compared)."""
    # every n-th of both parts, so that a set of any size is compared in a bounded time
    step = -(-(len(train) + len(val)) // MOST_FILES)
    pairs: list[tuple[Path, Path]] = []
    if not train or not val:
        return pairs, True
    left = MOST_BYTES
    # the cheap keys first: a size, then 4 KB, then the whole of the few that are still alike
    for alike in _common((train[::step], val[::step]), _size):
        for close in _common(alike, _head):
            # paid before it is read: the bound holds for what is read, not for what was
            ours, theirs = close
            left -= _size(ours[0]) * (len(ours) + len(theirs))
            if left < 0:
                return pairs, False
            for ours, theirs in _common(close, _whole):
                pairs += [(ours[0], path) for path in theirs]
    return pairs, step == 1


def _common(
    parts: Sequence[Sequence[Path]], key: Callable[[Path], Any]
) -> list[tuple[list[Path], list[Path]]]:
    """The files of both parts in groups of one key; only the keys that both parts have. Unreadable files have none."""
    groups: tuple[dict[Any, list[Path]], ...] = ({}, {})
    for part, group in zip(parts, groups, strict=True):
        for path in part:
            found = key(path)
            # 0 bytes and what cannot be read have a false key: that two files are empty says nothing
            if found:
                group.setdefault(found, []).append(path)
    ours, theirs = groups
    return [(paths, theirs[found]) for found, paths in ours.items() if found in theirs]


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except OSError:
        return None


def _size(path: Path) -> int:
    status = _status(path)
    return status.st_size if status else 0


def _head(path: Path) -> bytes:
    return _digest(path, HEAD)


def _whole(path: Path) -> bytes:
    return _digest(path, -1)


def _digest(path: Path, count: int) -> bytes:
    try:
        with regular_file(path) as file:
            return hashlib.sha256(file.read(count)).digest()
    except (OSError, DataError):
        return b""
