"""A file of rows with a delimiter, line by line: its encoding, its delimiter and its header are told, not assumed."""

from __future__ import annotations

import csv
import io
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from fmjax.data.folders import few
from fmjax.data.images import SUFFIXES, regular_file
from fmjax.errors import DataError

DELIMITERS = (",", ";", "\t")
MAX_LINE = 1 << 20  # letters
# how files begin that editors save in other encodings
OTHERS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a spreadsheet's own format"}
SAVE = "save it as UTF-8, which spreadsheets call CSV UTF-8"

Row = dict[str, str]  # cells by column


def line_error(where: str, line: int, reason: str) -> DataError:
    """The error for a line of a table."""
    return DataError(f"{where}, line {line:,}: {reason}")


def opened(path: Path, where: str) -> io.TextIOWrapper:
    """A table's text. Raises DataError for what is no file, or is in another encoding."""
    # before any of it is read as text: what its first bytes say is surer than where decoding fails
    try:
        file = io.BufferedReader(regular_file(path))
    except (OSError, DataError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise DataError(
            f"{where} cannot be opened: {reason}; pass csv:FILE with a table"
        ) from error
    known = next((name for mark, name in OTHERS.items() if file.peek(2)[:2] == mark), "")
    if known:
        file.close()
        raise DataError(f"{where} is {known}, not UTF-8; {SAVE}")
    # with the mark that some editors write first, or without it; csv wants the ends of lines as they are
    return io.TextIOWrapper(file, encoding="utf-8-sig", newline="")


def _lines(text: io.TextIOWrapper, where: str, *, first: int) -> Iterator[str]:
    """Each line; `first` is the number of the next one. Raises DataError for what is no text."""
    for number in itertools.count(first):
        # in pieces: a line without an end would take all memory
        try:
            line = text.readline(MAX_LINE)
        except UnicodeDecodeError as error:
            byte = error.object[error.start]
            raise DataError(
                f"{where} is not UTF-8 (byte 0x{byte:02x} in or after line {number:,}, as Windows-1252 and Latin-1 "
                f"have it); {SAVE}"
            ) from error
        if len(line) == MAX_LINE or "\0" in line:
            raise DataError(f"{where}, line {number:,} is no line of a table; {SAVE}")
        if not line:
            return
        yield line


def read_header(text: io.TextIOWrapper, where: str) -> tuple[list[str], str]:
    """(names of the columns, delimiter): the one that makes most columns of the first line."""
    line = next(_lines(text, where, first=1), "")
    split = {mark: next(csv.reader([line], delimiter=mark), []) for mark in DELIMITERS}
    delimiter = max(DELIMITERS, key=lambda mark: len(split[mark]))
    names = [name.strip() for name in split[delimiter]]
    if not any(names):
        raise DataError(f"{where} has no header; write one, such as path,label")
    # a first row of data would be lost as a header
    if any(os.path.splitext(name)[1].lower() in SUFFIXES for name in names):
        raise DataError(
            f"{where} has no header: its first line has {few(names, 3)}; write one above, such as path,label"
        )
    return names, delimiter


def read_rows(
    text: io.TextIOWrapper, names: list[str], delimiter: str, *, where: str
) -> Iterator[tuple[int, Row]]:
    """(line, cells by column) of each row behind the header."""
    # a quote that is never closed would take in all rows behind it: strict
    reader = csv.reader(_lines(text, where, first=2), delimiter=delimiter, strict=True)
    while True:
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise line_error(where, reader.line_num + 1, f"{error}; mend the quotes") from error
        if row is None:
            return
        line = reader.line_num + 1  # the header was read before
        if row and len(row) != len(names):
            raise line_error(
                where,
                line,
                f"{len(row)} cells, where the header has {len(names)}; quote cells with {delimiter!r} in them",
            )
        # empty lines are no rows
        if row:
            yield line, dict(zip(names, row, strict=True))
