"""The page of several backbones: one table, and what each sees in the same images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fmjax.report.pages import PatchPicture, generated
from fmjax.serial import write_atomically


@dataclass(frozen=True, kw_only=True)
class Row:
    """A backbone in numbers. Those that could not be had are None, and `note` says why."""

    name: str
    parameters: int  # of the image tower
    gflops: float  # of a forward pass of one image
    size: str  # of the images
    width: int  # of an embedding
    licence: str
    neighbours: float | None = None  # accuracy
    probe: float | None = None
    per_second: float | None = None  # images, of the network alone
    memory: int | None = (
        None  # bytes a device holds in a forward pass of one batch, by the compiler
    )
    note: str = ""
    maps: tuple[PatchPicture, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """All that the page shows. best: column -> the name of the backbone that has the best number."""

    title: str
    lead: str
    made: str
    rows: tuple[Row, ...]
    best: dict[str, str]
    neighbours_say: str
    probe_say: str
    speed_say: str


# column -> whether more is better
JUDGED = {"neighbours": True, "probe": True, "per_second": True, "memory": False}


def best(rows: tuple[Row, ...]) -> dict[str, str]:
    """Column -> the backbone that is best in it; of equals, and of one number alone, none."""
    found = {}
    for column, more in JUDGED.items():
        known = [(getattr(row, column), row.name) for row in rows]
        there = sorted((pair for pair in known if pair[0] is not None), reverse=more)
        if len(there) > 1 and there[0][0] != there[1][0]:
            found[column] = there[0][1]
    return found


def write_comparison(path: Path, page: Comparison) -> None:
    """Writes a page, whole or not at all."""
    write_atomically(path, generated("comparison.html.jinja", page=page))
