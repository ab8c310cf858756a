"""`csv:FILE`: a table with the path of an image in each row, and its label or labels."""

from __future__ import annotations

import os
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.batches import FEW_BAD
from fmjax.data.columns import LABEL, Columns, find_columns
from fmjax.data.example import Splits
from fmjax.data.folders import ROLES, LeftOut, few, part_asked_for
from fmjax.data.labels import Labels, Rows, splits_of
from fmjax.data.strings import Growing, Paths, Strings, repeated
from fmjax.data.tables import Row, line_error, opened, read_header, read_rows
from fmjax.errors import DataError, escaped

GONE, TWICE = "rows whose image is not there", "rows that are there twice"
MARKS = {"1": True, "1.0": True, "true": True, "0": False, "0.0": False, "false": False, "": False}


@dataclass
class Table:
    """A table as it is being read, row by row."""

    where: str
    folder: Path  # that paths start from
    columns: Columns
    classes: tuple[str, ...]  # that have a column each; () where the labels are in one
    paths: Growing = field(default_factory=Growing)  # below the folder
    lines: array = field(default_factory=lambda: array("q"))
    parts: array = field(default_factory=lambda: array("b"))  # places in `roles`
    roles: dict[str, int] = field(default_factory=dict)

    def error(self, line: int, reason: str) -> DataError:
        return line_error(self.where, line, reason)


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The table at a path. classes: those that there may be, in their order.

    A row has the path of an image, a label or several, and perhaps a part: docs/data.md has the rules. Raises
    DataError, with the line and the fix, for a table that cannot be told.
    """
    # the table first and the files behind it after: what is wrong with its text is said at once
    path, part = part_asked_for(place)
    folder = Path(config.data_dir).expanduser() if config.data_dir else path.parent
    where = escaped(str(path))
    with opened(path, where) as text:
        names, delimiter = read_header(text, where)
        columns = find_columns(names, config, where=where, parts=True)
        table = Table(where, folder, columns, _class_columns(names, columns, where))
        labels = _labels(read_rows(text, names, delimiter, where=where), table)
    names = table.paths.done()
    kept, left_out = _kept(names, labels, table, config)
    return splits_of(
        _parts(names, labels, table, kept),
        where=where,
        known=classes or (),
        declared=table.classes,
        wanted=part,
        left_out=left_out,
    )


def _class_columns(names: list[str], columns: Columns, where: str) -> tuple[str, ...]:
    """The columns of a class each, where no column has the labels."""
    if columns.label:
        return ()
    rest = tuple(name for name in names if name not in (columns.image, columns.split))
    if len(rest) < 2:
        raise DataError(
            f"{where} has no column of labels: it has {few(names)}; name it with --data.label-column, or call it "
            f"{LABEL[0]}"
        )
    return rest


def _labels(rows: Iterator[tuple[int, Row]], table: Table) -> Labels:
    """The labels of all rows, whose other cells go into the table."""
    columns, separator = table.columns, table.columns.separator
    collected = _collected(rows, table)
    if table.classes:
        found = Labels.of_several(_marked(line, row, table) for line, row in collected)
    elif separator:
        cells = (row[columns.label].split(separator) for _, row in collected)
        found = Labels.of_several(filter(None, map(str.strip, cell)) for cell in cells)
    else:
        found = Labels.of(_one_label(line, row, table) for line, row in collected)
    if not len(found):
        raise DataError(f"{table.where} has no rows; add one for each image")
    return found


def _collected(rows: Iterator[tuple[int, Row]], table: Table) -> Iterator[tuple[int, Row]]:
    # one pass over the file: labels are numbered as they come, and all else is kept as bytes and numbers
    columns, top = table.columns, os.path.abspath(table.folder)
    for line, row in rows:
        table.paths.add(_below(top, row[columns.image].strip(), line, table))
        table.lines.append(line)
        role = _role(row[columns.split], line, table) if columns.split else ""
        table.parts.append(table.roles.setdefault(role, len(table.roles)))
        yield line, row


def _below(top: str, path: str, line: int, table: Table) -> str:
    """A path below the folder of images. Raises DataError for one that leads out of it."""
    if not path:
        raise table.error(
            line, f"no path in the column {escaped(table.columns.image)!r}; fill it in"
        )
    found = os.path.relpath(path, top) if os.path.isabs(path) else os.path.normpath(path)
    # a table may be anybody's, and a set that is moved leaves such images behind
    if found.split(os.sep)[0] in ("..", "."):
        raise table.error(
            line,
            f"{escaped(path)!r} is not below {escaped(top)}; pass the folder of all images with --data.data-dir",
        )
    return found


def _role(cell: str, line: int, table: Table) -> str:
    # as folders are called: valid is val
    role = ROLES.get(cell.strip().lower())
    if role is None:
        column = escaped(table.columns.split)
        reason = f"{escaped(cell)!r} in the column {column!r}; it must be train, val or test"
        raise table.error(line, reason)
    return role


def _one_label(line: int, row: Row, table: Table) -> str:
    label = row[table.columns.label].strip()
    # an empty cell is no class of its own, whatever a program that wrote it meant
    if not label:
        column = escaped(table.columns.label)
        raise table.error(
            line, f"no label in the column {column!r}; fill it in, or take the row out"
        )
    return label


def _marked(line: int, row: Row, table: Table) -> Iterator[str]:
    """The classes whose column has a 1."""
    for name in table.classes:
        mark = MARKS.get(row[name].strip().lower())
        if mark is None:
            raise table.error(
                line,
                f"{escaped(row[name])!r} in the column {escaped(name)!r}; a column for each class has 0 or 1: name "
                f"that of the labels with --data.label-column",
            )
        if mark:
            yield name


def _kept(
    names: Strings, labels: Labels, table: Table, config: ImagesConfig
) -> tuple[np.ndarray, list[LeftOut]]:
    """The rows that are used, and what is said of the others."""
    keep = np.ones(len(names), bool)
    # a row that says again what one before it says is no second example
    pairs = repeated(names)
    for one, other in pairs:
        _check_same(names, labels, table, one, other)
    twice = [other for _, other in pairs]
    keep[twice] = False
    # each file is asked for now: a run that finds out later has counted on images that it never had
    gone = [i for i in np.flatnonzero(keep).tolist() if not os.path.exists(table.folder / names[i])]
    _check_gone(gone, int(keep.sum()), names, table, config)
    keep[gone] = False
    rows = ((GONE, gone), (TWICE, twice))
    shown = [(why, len(some), some[0]) for why, some in rows if some]
    left_out = [
        LeftOut(why, count, f"{names[first]}, line {table.lines[first]:,}")
        for why, count, first in shown
    ]
    return np.flatnonzero(keep), left_out


def _check_gone(
    gone: Sequence[int], count: int, names: Strings, table: Table, config: ImagesConfig
) -> None:
    """Raises DataError for more images that are not there than a run may have unreadable ones."""
    # the same bounds as for images that cannot be read, and of a few one may be gone
    share = len(gone) / count
    many = len(gone) > config.max_bad or (share > config.max_bad_share and len(gone) >= FEW_BAD)
    if len(gone) == count or many:
        raise DataError(
            f"{len(gone):,} of {count:,} images of {table.where} are not there "
            f"({few((names[i] for i in gone[:3]), 3)}); paths start from {escaped(str(table.folder))}: pass another "
            f"folder with --data.data-dir, or allow for more with --data.max-bad and --data.max-bad-share"
        )


def _check_same(names: Strings, labels: Labels, table: Table, one: int, other: int) -> None:
    lines = (
        f"{escaped(names[one])} is in line {table.lines[one]:,} and in line {table.lines[other]:,}"
    )
    # in two parts it is worse than in one: the score would be of an image that was trained on
    if table.parts[one] != table.parts[other]:
        roles = list(table.roles)
        where = f"{roles[table.parts[one]]} and {roles[table.parts[other]]}"
        raise DataError(f"{table.where}: {lines}, which are {where}; take one out")
    if labels.at(one) != labels.at(other):
        told = [
            few((labels.names[code] for code in labels.at(row)), 3) or "none"
            for row in (one, other)
        ]
        raise DataError(
            f"{table.where}: {lines}, with the labels {told[0]} and {told[1]}; take one out"
        )


def _parts(names: Strings, labels: Labels, table: Table, kept: np.ndarray) -> dict[str, Rows]:
    codes = np.frombuffer(table.parts, np.int8)[kept]
    return {
        role: _part(names, labels, table.folder, kept[codes == code])
        for role, code in table.roles.items()
    }


def _part(names: Strings, labels: Labels, folder: Path, rows: np.ndarray) -> Rows:
    files = Paths(folder, names.take(rows))
    return Rows(lambda i: files[i], labels.take(rows), files.names, files)
