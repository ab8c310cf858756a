"""What can be wrong with a checkpoint, and how words of a file are shown to a person."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

MAX_SHOWN = 80  # characters of one name


class UserError(Exception):
    """What a file, name or flag of the user causes: one sentence that ends in what to do."""


class CheckpointError(UserError, ValueError):
    """A checkpoint that cannot be read, or does not fit the model it was meant for."""


def quoted(text: str, limit: int = MAX_SHOWN) -> str:
    """The text in quotes and in ASCII, escaped where it would not print, and cut where it is long.

    Every word of a file goes through here on its way to a terminal, where it could move the cursor, forge lines or run
    from right to left.
    """
    shown = ascii(text[:limit])
    if len(text) <= limit and len(shown) <= limit + 2:
        return shown
    return f"{shown[: limit + 1]}...{shown[0]}"


def shown(path: str | Path) -> str:
    """The path as it is where that prints; a folder may hold files of any name."""
    text = str(path)
    return text if text.isprintable() else ascii(text)


def listed(names: Iterable[str], limit: int = 5) -> str:
    """The first few names in quotes, and how many more there are."""
    names = list(names)
    first = ", ".join(map(quoted, islice(names, limit)))
    return f"{first} and {len(names) - limit:,} more" if len(names) > limit else first
