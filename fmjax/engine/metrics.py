"""metrics.jsonl: the numbers of a run, a row a line, which survive a crash, a full disk and a torn line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fmjax.serial import write_atomically

METRICS = "metrics.jsonl"
Row = dict[str, Any]
Sink = Callable[[Mapping[str, Any]], None]


class Metrics:
    """The rows of metrics.jsonl. Rows after the step that a run resumes from are taken out, and so are damaged ones,
    which `dropped` says in a sentence ("" where there were none). writes: False for a process that only looks on.
    also: is given every row, those that are kept first.
    """

    def __init__(
        self, path: Path, resume_step: int, *, writes: bool = True, also: Sink | None = None
    ) -> None:
        self.path, self.writes, self.also = path, writes, also
        rows, damaged = _read(path)
        # later rows are of steps that were lost with the crash, and are about to be done again
        kept = [row for row in rows if row["step"] <= resume_step]
        self.dropped = f"{path}: {_lines(damaged)} damaged and left out" if damaged else ""
        if writes and (damaged or kept != rows or not path.exists()):
            write_atomically(path, "".join(map(_line, kept)))
        for row in kept:
            self._pass_on(row)

    def rows(self) -> list[Row]:
        """All rows that are whole."""
        return rows_in(self.path)

    def has_scores(self, step: int) -> bool:
        """Whether a step has a row with scores."""
        return any(
            row["step"] == step and any(name.startswith("val_") for name in row)
            for row in self.rows()
        )

    def add(self, row: Mapping[str, Any]) -> None:
        """Appends a row by one write, on a line of its own even where the last one was cut short."""
        if not self.writes:
            return
        short = {key: _short(value) for key, value in row.items()}
        # unbuffered and in one piece: a crash leaves a whole row, or a torn one that the next does not join
        with self.path.open("a+b", buffering=0) as file:
            torn = file.seek(0, os.SEEK_END) and not _ends_a_line(file)
            file.write(("\n" * torn + _line(short)).encode())
        self._pass_on(short)

    def _pass_on(self, row: Row) -> None:
        if self.also is not None:
            self.also(row)


def rows_in(path: Path) -> list[Row]:
    """The rows of a file that are whole."""
    return _read(path)[0]


def _ends_a_line(file: Any) -> bool:
    file.seek(-1, os.SEEK_END)
    return file.read(1) == b"\n"


def _short(value: Any) -> Any:
    return round(value, 8) if isinstance(value, float) else value


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _read(path: Path) -> tuple[list[Row], list[int]]:
    """The rows that are whole, and the numbers of the lines that are not: cut short, glued together, overwritten."""
    content = path.read_bytes() if path.exists() else b""
    rows, damaged = [], []
    # not splitlines, which also splits at characters that may be inside; a row that lost its end has lost its brace
    for number, line in enumerate(content.split(b"\n"), start=1):
        row = _row(line)
        if row is not None:
            rows.append(row)
        elif line:
            damaged.append(number)
    return rows, damaged


def _row(line: bytes) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    # True is an int to isinstance, and no number of a run
    whole = isinstance(row, dict) and type(row.get("step")) is int
    return row if whole and all(type(value) in (int, float) for value in row.values()) else None


def _lines(numbers: list[int]) -> str:
    """Line numbers in words, the first few of them."""
    shown = ", ".join(map(str, numbers[:5])) + (", ..." if len(numbers) > 5 else "")
    return f"line {shown} is" if len(numbers) == 1 else f"lines {shown} ({len(numbers)} in all) are"
