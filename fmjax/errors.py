"""The errors a user can cause, each one sentence and a fix, and the exit codes that the command line gives them."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# the conversion library stands alone and raises its own: their common base is its too, under the name it has here
from weights_conversion.errors import CheckpointError
from weights_conversion.errors import UserError as FmjaxError

__all__ = [
    "CheckpointError",
    "DataError",
    "DivergedError",
    "FilesError",
    "FmjaxError",
    "Stopped",
    "TroubleError",
    "UsageError",
    "amount",
    "escaped",
    "exit_code",
    "in_bytes",
    "in_gib",
    "nearest",
    "printable",
    "safe",
    "sentence",
]

CheckpointError.__module__ = __name__  # where users import it from, and what a traceback should say


class UsageError(FmjaxError, ValueError):
    """A name, flag, size or combination that cannot work."""


class DataError(FmjaxError, ValueError):
    """Images or labels that cannot be used."""


class DivergedError(FmjaxError, ArithmeticError):
    """A run whose numbers are no numbers any more."""


class FilesError(FmjaxError, OSError):
    """A place that cannot be read or written."""


class TroubleError(FmjaxError):
    """A machine on which something is to be mended."""


class Stopped(FmjaxError):
    """A run that was asked to stop, by a signal; the same command goes on with it."""


# the first row that an error is of; 5 holds for the operating system's own errors too
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UsageError, 2),
    (DataError, 3),
    (CheckpointError, 4),
    (OSError, 5),
    (DivergedError, 6),
    (TroubleError, 7),
    (Stopped, 75),  # sysexits.h: a failure that passes when it is tried again
)


def exit_code(error: Exception) -> int | None:
    """The process's exit code for an error that a user can cause; None for any other, which is a bug."""
    return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), None)


def sentence(error: Exception) -> str:
    """What an error says; the operating system's in the order of a sentence."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.4) -> str:
    """The known names closest to `word`, as the tail of an error message ("" when nothing is close)."""
    folded = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), folded, n=3, cutoff=cutoff)
    return f"; did you mean {', '.join(folded[c] for c in close)}?" if close else ""


def printable(text: str, keep: str = "") -> str:
    """The text with what could steer a terminal, or turn the direction of reading, as escapes. keep: letters that
    stay."""
    return "".join(_shown(letter, keep) for letter in text)


def _shown(letter: str, keep: str) -> str:
    if letter.isprintable() or letter in keep:
        return letter
    return ascii(letter)[1:-1]  # without its quotes


def safe(text: str) -> str:
    """A text of several lines as a terminal may show it: names in it can be anybody's."""
    return printable(text, keep="\n\t")


def escaped(text: str, limit: int = 120) -> str:
    """A name as it may stand in a sentence: printable, and a long one keeps its end."""
    shown = printable(text)
    return shown if len(shown) <= limit else f"...{shown[-limit:]}"


UNITS = ((10**12, "TB"), (10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


def amount(count: int, what: str, several: str = "") -> str:
    """So many of something as a sentence counts them: 1 image, 1,024 images. several: a plural without an s."""
    return f"{count:,} {what if count == 1 else several or f'{what}s'}"


def in_bytes(count: int) -> str:
    """A size as it may stand in a sentence: 1.04 GB."""
    unit = next((row for row in UNITS if count >= row[0]), (1, "bytes"))
    return f"{count / unit[0]:,.3g} {unit[1]}" if unit[0] > 1 else f"{count} bytes"


def in_gib(count: int) -> str:
    """A size of memory, in the unit that devices and flags have it in: 72.8 GiB."""
    if count < 2**30:
        return f"{count / 2**20:.3g} MiB"
    return f"{count / 2**30:,.1f} GiB"
