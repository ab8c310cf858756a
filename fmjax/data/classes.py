"""A file with the names of classes: one a line, the first that of number 0."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fmjax.data.folders import folded
from fmjax.data.images import regular_file
from fmjax.errors import DataError, escaped

MAX_BYTES = 1 << 22
MAX_CLASSES = 1_000_000  # that a run's records may have


def read_classes(
    path: Path, *, most: int = MAX_CLASSES, task: str = "classification"
) -> tuple[str, ...]:
    """The names in a file. Raises DataError where they cannot be told. most: classes that the task can have."""
    where = escaped(str(path))
    try:
        with regular_file(path) as file:
            # one byte more tells a file that is too long without reading the whole of it
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise DataError(f"it has more than {MAX_BYTES:,} bytes")
        # with the mark that some editors write first, or without it
        text = content.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{where} cannot be read: {escaped(str(error), 200)}; write a class name a line"
        ) from error
    names = [line.strip() for line in text.rstrip().split("\n")]
    if names == [""]:
        raise DataError(f"{where} is empty; write a class name a line, that of value 0 first")
    # a line left out would shift the class of every value behind it
    if "" in names:
        raise DataError(
            f"{where} has no name in line {names.index('') + 1}; each value needs one, from 0 on"
        )
    _check_names(where, names, most, task)
    return tuple(names)


def _check_names(where: str, names: Sequence[str], most: int, task: str) -> None:
    if not 2 <= len(names) <= most:
        raise DataError(f"{where} has {len(names):,} names; {task} needs two to {most:,}")
    seen: dict[str, int] = {}
    for line, name in enumerate(names, 1):
        twin = seen.setdefault(folded(name), line)
        if twin != line:
            raise DataError(
                f"{where} has the name {escaped(name)!r} in lines {twin} and {line}; rename one"
            )
