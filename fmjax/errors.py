"""The errors a user can cause. Each is one sentence and a fix; the command line turns `exit_code` into the process's
own."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from weights_conversion.errors import CheckpointError

__all__ = ["CheckpointError", "DataError", "FilesError", "UsageError", "escaped", "nearest"]

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


def escaped(text: str, limit: int = 120) -> str:
    """A name as it may reach a terminal: what does not print is escaped, and a long one keeps its end."""
    printable = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    return printable if len(printable) <= limit else f"...{printable[-limit:]}"
