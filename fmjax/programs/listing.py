"""`fmjax models`: the rows that a search finds, narrowed, sorted, and as a table. Imports no jax."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from fmjax import names
from fmjax.console import Column, console, show_table
from fmjax.errors import UsageError, in_bytes, nearest
from fmjax.programs import catalogue

Record = dict[str, Any]
FAMILY = "family"
# A column's published scores, the first that there is; a letter behind the number says which it is if not the first
SCORES: dict[str, tuple[tuple[str, str], ...]] = {
    "zero-shot": (("imagenet1k_zeroshot", ""),),
    "knn": (("imagenet1k_knn", ""),),
    "probe": (
        ("imagenet1k_linear", ""),
        ("imagenet_real_linear", "r"),
        ("imagenet1k_attentive_probe", "a"),
    ),
    "top-1": (("imagenet1k", ""), ("imagenet1k_finetune", "f"), ("fashion_mnist", "m")),
}
MARKS = {
    "r": "linear, on the labels of ImageNet-ReaL",
    "a": "attentive",
    "f": "after fine-tuning",
    "m": "Fashion-MNIST",
    "?": "not all of it confirmed by published sources",
}
SHORT_LICENCES = {
    "NVIDIA AI Enterprise / NGC terms (not open source)": "NGC terms",
    "Apple sample code licence (apple-ascl)": "Apple ASCL",
    "NVIDIA Open Model License": "NVIDIA Open",
    "DINOv3 License": "DINOv3",
    "Apache-2.0 (weights); trained on Fashion-MNIST, MIT": "Apache-2.0",
}
FREE = ("Apache-2.0", "MIT", "Apache-2.0 / MIT", "MIT / Apache-2.0")
UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "G": 10**9}
COUNT = re.compile(r"(\d+(?:\.\d+)?)\s*([KMBG]?)", re.IGNORECASE)


def found(
    pattern: str = "*",
    *,
    pretrained: bool = False,
    max_params: str = "",
    licence: str = "",
    sort: str = FAMILY,
    reverse: bool = False,
) -> list[Record]:
    """The records of the rows that a search finds and the filters keep.

    max_params: as in 90M or 1.1B. licence: a part of it, in any case. sort: one of KEYS, smallest first, or of SCORES,
    the best first; rows that lack what is sorted by come last, either way. Raises UsageError where nothing is left.
    """
    matches = names.list_models(pattern, pretrained=pretrained)
    if not matches:
        # only now, as it is for a hint alone
        known = names.list_models(pretrained=pretrained)
        hint = nearest(pattern.strip("*"), known, cutoff=0.6)
        raise UsageError(f"no model matches {pattern!r}{hint} (`fmjax models` lists all)")
    rows = [catalogue.record(name) for name in matches]
    if max_params:
        rows = _up_to(rows, max_params)
    if licence:
        rows = _licensed(rows, licence)
    return ordered(rows, sort, reverse=reverse)


def _up_to(rows: list[Record], max_params: str) -> list[Record]:
    # compared with the image tower, which is what is loaded and trained
    most = _count(max_params)
    kept = [row for row in rows if row["parameters"] <= most]
    if not kept:
        least = min(rows, key=lambda row: row["parameters"])
        raise UsageError(
            f"--max-params is {max_params!r}; the smallest of the {len(rows)} that match is {least['name']} with "
            f"{catalogue.in_millions(least['parameters'])}"
        )
    return kept


def _count(text: str) -> float:
    match = COUNT.fullmatch(text.strip())
    if match is None:
        raise UsageError(f"--max-params is {text!r}; it must be a number such as 90M or 1.1B")
    return float(match[1]) * UNITS[match[2].upper()]


def _licensed(rows: list[Record], licence: str) -> list[Record]:
    kept = [row for row in rows if licence.lower() in row["licence"].lower()]
    if not kept:
        known = ", ".join(dict.fromkeys(row["licence"] for row in rows))
        raise UsageError(f"--licence is {licence!r}; what matches has {known}")
    return kept


def score(row: Record, column: str) -> tuple[float | None, str]:
    """A published score of a row and the letter that says which; None where there is none."""
    # scores of different tests are not mixed silently: the letter stays with the number
    for name, mark in SCORES[column]:
        if name in row["accuracy"]:
            return row["accuracy"][name], mark
    return None, ""


KEYS: dict[str, Callable[[Record], Any]] = {
    "name": lambda row: row["name"].lower(),
    "parameters": lambda row: row["parameters"],
    "gflops": lambda row: at_size(row)[1],
    "size": lambda row: row["float32_bytes"],
    "parity": lambda row: row["parity"],
}


def ordered(rows: list[Record], sort: str, *, reverse: bool = False) -> list[Record]:
    """The records by a field; FAMILY leaves the order of the tables."""
    if sort == FAMILY:
        return rows[::-1] if reverse else rows
    # the best score is the highest, of all else the least comes first
    key = KEYS.get(sort) or (lambda row: score(row, sort)[0])
    falls = (sort in SCORES) != reverse
    known = [row for row in rows if key(row) is not None]
    lacking = [row for row in rows if key(row) is None]
    return sorted(known, key=key, reverse=falls) + lacking


def at_size(row: Record) -> tuple[tuple[int, int], float]:
    """The size that the published evaluation uses, or that the positions are made for, and the GFLOPs at it."""
    if "evaluated_at" in row:
        return row["evaluated_at"], row["evaluated_gflops"]
    return row["image_size"], row["gflops"]


def show(rows: Sequence[Record], *, pretrained: bool) -> None:
    """The records as a table, and below it what its letters mean."""
    columns = table(rows)
    show_table(columns)
    marks = [mark for mark in MARKS if any(cell.endswith(mark) for cell in _marked(columns))]
    kind = "published weights" if pretrained else "architectures"
    best = "" if pretrained else "; scores are the best of their weights"
    notes = [
        f"{len(rows)} {kind}; GFLOPs are of an image, sizes of the image tower in float32{best}",
        *(f"{mark}: {MARKS[mark]}" for mark in marks),
    ]
    # notes are for people: who reads a pipe has --json
    if console.is_terminal:
        console.print("; ".join(notes), style="dim", soft_wrap=False)


def _marked(columns: Sequence[Column]) -> list[str]:
    """The cells that can end in a letter: of scores, and of the column without a title."""
    marked = [column for column in columns if column.title in SCORES or not column.title]
    return [cell for column in marked for cell in column.cells]


def table(rows: Sequence[Record]) -> list[Column]:
    """The columns of the list, with the order in which a narrow terminal goes without them."""
    licences = [_short(row["licence"]) for row in rows]
    # what may be used freely is told from what wants reading first
    styles = dict.fromkeys(licences, "yellow") | dict.fromkeys(FREE, "green")
    sizes = [at_size(row) for row in rows]
    columns = [
        Column("name", [row["name"] for row in rows], style="cyan"),
        Column("", ["?" * (not row["verified"]) for row in rows], rank=2, style="yellow"),
        Column("params", [catalogue.in_millions(row["parameters"]) for row in rows], right=True),
        Column("px", ["x".join(map(str, dict.fromkeys(size))) for size, _ in sizes], 6, right=True),
        Column("GFLOPs", [f"{gflops:,.1f}" for _, gflops in sizes], rank=4, right=True),
        Column("size", [in_bytes(row["float32_bytes"]) for row in rows], rank=7, right=True),
        Column("licence", licences, rank=1, styles=styles),
        Column("parity", [_error(row["parity"]) for row in rows], rank=5, right=True),
    ]
    # a column without a single score says nothing
    for number, name in enumerate(SCORES):
        cells = [_scored(*score(row, name)) for row in rows]
        if any(cells):
            columns.append(Column(name, cells, rank=3 + number % 2, right=True, style="bold"))
    return columns


def _short(licence: str) -> str:
    # a name is short for a column, not for a lawyer: the whole one is in --json and on the page
    parts = [SHORT_LICENCES.get(part, part) for part in _licences(licence)]
    return " / ".join(dict.fromkeys(parts))


def _licences(licence: str) -> list[str]:
    """The parts of several weights' licences; some have the sign between them in their name."""
    if licence in SHORT_LICENCES:
        return [licence]
    return licence.split(" / ")


def _error(value: float | None) -> str:
    return "" if value is None else f"{value:.1e}"


def _scored(value: float | None, mark: str) -> str:
    return "" if value is None else f"{value:.1f}{mark}"
