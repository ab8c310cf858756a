"""The comparisons with the authors' own code as a command: each is told and stored as it comes."""

from __future__ import annotations

import sys
from fnmatch import fnmatchcase
from pathlib import Path

from fmjax.errors import UsageError
from tests.parity.authors import record
from tests.parity.authors.compare import available, compare


def run(directory: Path, pattern: str, results: Path) -> int:
    """Compares the originals that match; 0 where all are equal, 1 where one is not, 2 where none was asked for."""
    try:
        found = available(directory)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    originals = [row for row in found if fnmatchcase(row.name.lower(), pattern.lower())]
    if not originals:
        names = ", ".join(row.name for row in found[:3])
        sys.stderr.write(
            f"no original in {str(directory)!r} matches {pattern!r}; they are {names}, ...\n"
        )
        return 2
    bad = []
    for original in originals:
        try:
            result = compare(original, directory)
        except Exception as error:  # the others are still worth their minutes
            bad.append(original.name)
            record.forget(results, original.name)
            tell_failure(original.name, error)
            continue
        bad += [original.name] if result.over else []
        record.store(results, [result])
        tell(f"{'over' if result.over else 'ok':<5}{record.line(result, ())}")
    tell(
        f"{len(originals) - len(bad)} of {len(originals)} equal to their authors' code {', '.join(bad)}"
    )
    return 1 if bad else 0


def tell(text: str) -> None:
    """A line at once, also into a pipe."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def tell_failure(name: str, error: Exception) -> None:
    """That a comparison ended in an error."""
    tell(f"fails {name}: {type(error).__name__}: {str(error)[:300]}")
