"""The folders of a run's steps: which count, which is the best, and what becomes of a damaged one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

STEPS, SET_ASIDE = "checkpoints", "set_aside"  # folders of a run


def committed(run: Path) -> list[int]:
    """The steps of a run, in order. A folder without any file in it was made by no save, and is none."""
    found = [path for path in (run / STEPS).glob("*") if path.name.isdecimal() and path.is_dir()]
    return sorted(
        int(path.name) for path in found if any(inner.is_file() for inner in path.rglob("*"))
    )


def has_steps(run: Path) -> bool:
    """Whether a run has checkpoints to go on from."""
    return bool(committed(run))


def folder(run: Path, step: int) -> Path:
    """Where a step lies."""
    return run / STEPS / str(step)


def remove_empty(run: Path) -> None:
    """Orbax would take them for steps: the newest one, and one of those that are kept in the place of a real one."""
    steps = committed(run)
    for path in (run / STEPS).glob("*"):
        if path.name.isdecimal() and int(path.name) not in steps:
            for inner, _, _ in os.walk(path, topdown=False):
                with suppress(OSError):
                    # a folder that can only be read, or is not empty after all, stays
                    os.rmdir(inner)


def set_aside(run: Path, step: int) -> Path:
    """Moves a step out of the way, where nothing deletes it, and returns where it lies now."""
    place = run / SET_ASIDE
    place.mkdir(exist_ok=True)
    # the same step may be damaged again after it was trained anew
    free, count = place / f"{step}", 1
    while free.exists():
        count += 1
        free = place / f"{step}-{count}"
    folder(run, step).rename(free)
    return free


def best(rows: Iterable[Mapping[str, Any]], watch: str, *, highest: bool) -> int | None:
    """The step with the best score of all that were scored, the later one of equals; None where none was.

    rows: of metrics.jsonl. watch: the name of the score.
    """
    scored = [(row[f"val_{watch}"], row["step"]) for row in rows if f"val_{watch}" in row]
    if not scored:
        return None
    sign = 1 if highest else -1
    # the later of equals: it has learned more, and its files are the younger ones
    return max(scored, key=lambda pair: (sign * pair[0], pair[1]))[1]


def size(step: Path) -> int:
    """Bytes of all files of a step."""
    return sum(path.stat().st_size for path in step.rglob("*") if path.is_file())
