"""The errors a user can cause. Each is one sentence and a fix; the command line turns `exit_code` into the process's
own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from weights_conversion.errors import CheckpointError

__all__ = ["CheckpointError", "DataError", "FilesError", "UsageError", "escaped", "nearest", "printable", "safe"]

CheckpointError.__module__ = __name__  # where users import it from, and what a traceback should say


class UsageError(ValueError):
    """A name, flag, size or combination that cannot work."""

    exit_code = 2


class DataError(ValueError):
    """Images or labels that cannot be used."""

    exit_code = 3


class FilesError(OSError):
    """A place that cannot be read or written."""

    exit_code = 5


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """The known names closest to `word`, as the tail of an error message ("" when nothing is close)."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=3, cutoff=cutoff)
    return f"; did you mean {', '.join(folded[c] for c in close)}?" if close else ""


def printable(text: str, keep: str = "") -> str:
    """The text with what could steer a terminal, or turn the direction of reading, as escapes. keep: letters that
    stay."""
    return "".join(letter if letter.isprintable() or letter in keep else ascii(letter)[1:-1] for letter in text)


def safe(text: str) -> str:
    """A text of several lines as a terminal may show it: names in it can be anybody's."""
    return printable(text, keep="\n\t")


def escaped(text: str, limit: int = 120) -> str:
    """A name as it may stand in a sentence: printable, and a long one keeps its end."""
    shown = printable(text)
    return shown if len(shown) <= limit else f"...{shown[-limit:]}"
