"""Answers about pictures as a table: printed, or a CSV, JSON lines or Parquet file, row by row as they come.

All have the same columns: file, error (why there is no answer; none where there is one), then those of the task. A CSV
has lists as JSON.
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from rich.table import Table
from rich.text import Text

from fmjax.console import console
from fmjax.errors import printable, safe
from weights_conversion.writer import whole

Row = dict[str, Any]
TEXTS = ("file", "error", "class", "mask")  # columns of texts; "classes" are lists of them
ROW_GROUP = 10_000  # rows of a Parquet file that are written at once
SHOWN = 200  # rows of a printed table, whose columns are as wide as these need
FEW = 5  # values of a list in a cell


class Sink(Protocol):
    """What takes rows of the same columns, a few at a time. like: a row in which each column has a value."""

    def add(self, rows: Sequence[Row], like: Row) -> None: ...


def text_of(value: str) -> str:
    """A text as UTF-8 can have it: bytes of a name that are none stand as escapes."""
    return value.encode("utf-8", "backslashreplace").decode()


class Csv:
    """Comma-separated values, with a line of names."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write, self.columns = write, ()

    def add(self, rows: Sequence[Row], like: Row) -> None:
        lines = io.StringIO()
        writer = csv.writer(lines, lineterminator="\n")
        if not self.columns:
            self.columns = tuple(like)
            writer.writerow(self.columns)
        writer.writerows([_cell(row[name]) for name in self.columns] for row in rows)
        self.write(text_of(lines.getvalue()))


def _cell(value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value


class JsonLines:
    """An object a line. Names of files are as the system has them: escapes stand for bytes that are no text."""

    def __init__(self, write: Callable[[str], Any]) -> None:
        self.write = write

    def add(self, rows: Sequence[Row], like: Row) -> None:
        # all that is no ASCII is escaped: names in it can be anybody's, and the lines go into terminals
        self.write("".join(json.dumps(row) + "\n" for row in rows))


class Parquet:
    """A Parquet file, whose row groups are written as they fill."""

    def __init__(self, file: Any) -> None:
        self.file, self.writer = file, None
        # a row group of 32 rows would be read more slowly than they are written
        self.waiting: list[Row] = []

    def add(self, rows: Sequence[Row], like: Row) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        # the first row may be that of an unreadable picture, which has no values
        if self.writer is None:
            fields = [(name, _kind(name, value)) for name, value in like.items()]
            self.writer = pq.ParquetWriter(self.file, pa.schema(fields))
        self.waiting += rows
        if len(self.waiting) >= ROW_GROUP:
            self.flush()

    def flush(self) -> None:
        import pyarrow as pa

        if self.writer is None or not self.waiting:
            return
        schema = self.writer.schema
        texts = [field.name for field in schema if field.type == pa.string()]
        rows = [_stored(row, texts) for row in self.waiting]
        self.writer.write_table(pa.Table.from_pylist(rows, schema=schema))
        self.waiting = []

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()


def _kind(name: str, value: Any) -> Any:
    """The type of a column, by its name and the value in its first row."""
    import pyarrow as pa

    if name == "classes":
        return pa.list_(pa.string())
    if name in TEXTS or (isinstance(value, list) and value and isinstance(value[0], list)):
        return pa.string()
    if isinstance(value, list):
        return pa.list_(pa.float64())
    return pa.float64() if isinstance(value, float) else pa.int64()


def _stored(row: Row, texts: Sequence[str]) -> Row:
    """The row with texts as UTF-8, and lists of lists as JSON."""
    out = dict(row)
    for name in texts:
        value = row[name]
        if value is not None:
            out[name] = json.dumps(value) if isinstance(value, list) else text_of(value)
    if row.get("classes") is not None:
        out["classes"] = [text_of(name) for name in row["classes"]]
    return out


class Printed:
    """Tables on the terminal, so many rows each that a long answer needs no memory."""

    def __init__(self) -> None:
        self.waiting: list[Row] = []

    def add(self, rows: Sequence[Row], like: Row) -> None:
        self.waiting += rows
        # the widths of columns are those of a table's own rows
        while len(self.waiting) >= SHOWN:
            self._show(self.waiting[:SHOWN])
            self.waiting = self.waiting[SHOWN:]

    def close(self) -> None:
        if self.waiting:
            self._show(self.waiting)

    def _show(self, rows: Sequence[Row]) -> None:
        # lists of classes and their numbers are read together, and an error stands where an answer would
        names = [name for name in rows[0] if name not in TOLD]
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in (*names, *(["classes"] if "classes" in rows[0] else [])):
            table.add_column(name, overflow="fold")
        for row in rows:
            table.add_row(*_shown(row, names))
        console.print(table, soft_wrap=False)


# columns that a printed table has none of: the classes have their numbers beside them, and the first is the likeliest
TOLD = ("error", "class", "probability", "classes", "probabilities", "shares")


def _shown(row: Row, names: Sequence[str]) -> list[Text]:
    # the reason stands in the second column, whatever that is
    if row["error"]:
        told = f"unreadable: {row['error']}"
        return [Text(printable(row["file"])), Text(printable(told), style="red")]
    cells = [_in_words(row[name]) for name in names]
    # a class and its number are read together
    if "classes" in row:
        numbers: list[float] = row.get("probabilities") or row.get("shares") or []
        pairs = list(zip(row["classes"], numbers, strict=True))
        told = ", ".join(f"{name} {share:.1%}" for name, share in pairs[:FEW])
        cells.append(told + (f" and {len(pairs) - FEW} more" if len(pairs) > FEW else ""))
    return [Text(printable(cell)) for cell in cells]


def _in_words(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        more = ", ..." if len(value) > FEW else ""
        return ", ".join(_in_words(one) for one in value[:FEW]) + more
    return str(value)


def to_stdout(text: str) -> None:
    """A text as it is into a file or a pipe, and safe on a terminal."""
    sys.stdout.write(safe(text) if sys.stdout.isatty() else text)


@contextmanager
def written(path: Path) -> Iterator[Sink]:
    """A file of the kind that its name says, which is there when all rows are in it."""
    with whole(path) as file:
        # Parquet's own writer needs the file, the others give text
        if path.suffix == ".parquet":
            sink = Parquet(file)
            try:
                yield sink
                sink.flush()
            finally:
                sink.close()
            return
        kind = Csv if path.suffix == ".csv" else JsonLines
        yield kind(lambda text: file.write(text.encode()))


@contextmanager
def printed(form: str) -> Iterator[Sink]:
    """Rows on standard output: a "table", "csv" or "jsonl"."""
    if form == "table":
        sink = Printed()
        yield sink
        sink.close()
        return
    yield {"csv": Csv, "jsonl": JsonLines}[form](to_stdout)
