"""The page of a run: one file that needs nothing from anywhere, in which every name is only a text."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

from fmjax import __version__
from fmjax.errors import printable
from fmjax.report.atlas import Atlas
from fmjax.report.charts import Chart
from fmjax.report.confusion import ClassRow, Confusion
from fmjax.report.masks import Segmentation
from fmjax.serial import write_atomically

Facts = tuple[tuple[str, str], ...]
# in the order of the page: anchor, name, and the fields of which one makes the section
SECTIONS = (
    ("curves", "Training", ("curves",)),
    ("confusion", "Confusions", ("confusion",)),
    ("classes", "Classes", ("classes", "segmentation")),
    ("mistakes", "Mistakes", ("mistakes", "segmentation")),
    ("calibration", "Calibration", ("calibration",)),
    ("features", "Features", ("maps", "atlas", "pictures_note")),
    ("data", "Data", ("data",)),
    ("speed", "Speed", ("speed",)),
    ("run", "The run", ("run",)),
)


@dataclass(frozen=True)
class Mistake:
    """An image that was taken for another class. picture: a data URI, "" where it is gone; pixels: whether it is so
    small that its pixels are shown."""

    name: str
    true: str
    predicted: str
    confidence: float
    picture: str
    pixels: bool


@dataclass(frozen=True)
class PatchPicture:
    """An image, its patches in colours, and attention to them, as data URIs; "" where there is none."""

    name: str
    label: str
    picture: str
    pixels: bool
    patches: str
    attention: str
    heads: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Page:
    """All that the page shows. A section whose fields are empty is not there."""

    title: str
    lead: str
    made: str
    run: Facts
    settings: str  # all of them, as JSON
    digests: Facts = ()
    changed: Facts = ()  # those that are not the default
    environment: Facts = ()
    notes: tuple[str, ...] = ()  # what is not there, and why
    figures: Facts = ()
    scored: bool = False  # whether the first figure is the score
    curves: tuple[Chart, ...] = ()
    curves_say: str = ""
    score_steps: tuple[str, ...] = ()
    scores: tuple[tuple[str, tuple[str, ...]], ...] = ()
    predictions_say: str = ""
    confusion: Confusion | None = None
    classes: tuple[ClassRow, ...] = ()
    class_count: int = 0
    mistakes: tuple[Mistake, ...] = ()
    calibration: Chart | None = None
    confidences: Chart | None = None
    calibration_say: str = ""
    segmentation: Segmentation | None = None
    pictures_note: str = ""
    maps: tuple[PatchPicture, ...] = ()
    maps_say: str = ""
    atlas: Atlas | None = None
    atlas_say: str = ""
    data: Facts = ()
    class_sizes: tuple[tuple[str, int, int], ...] = ()
    speed: tuple[Chart, ...] = ()
    speed_say: str = ""


def made() -> str:
    """The last line of a page: what made it, and when."""
    now = datetime.now(UTC).strftime("%d %B %Y, %H:%M UTC")
    return f"Made by fmjax {__version__} on {now}. This file needs nothing from anywhere."


def write_page(path: Path, page: Page) -> None:
    """Writes a page, whole or not at all."""
    write_atomically(path, rendered(page))


def rendered(page: Page) -> Iterator[str]:
    """The page in pieces."""
    sections = [
        (anchor, name)
        for anchor, name, fields in SECTIONS
        if any(getattr(page, field) for field in fields)
    ]
    return generated("report.html.jinja", page=page, sections=sections)


def generated(template: str, **values: Any) -> Iterator[str]:
    """A page of a template of this package, in pieces. values: what it shows, all of which is escaped."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined
    from markupsafe import Markup

    # everything that a template prints is escaped, and shown without what could turn the direction of reading
    environment = Environment(
        autoescape=True,
        loader=FunctionLoader(_text),
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _text("script.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    # only these two are code, and both are files of the package; a browser runs no script but that of this digest
    return environment.get_template(template).generate(
        **values,
        style=Markup(_text("style.css")),  # noqa: S704
        script=Markup(script),  # noqa: S704
        script_hash=f"sha256-{digest}",
    )


def _text(name: str) -> str:
    return (resources.files("fmjax.report") / "page" / name).read_text(encoding="utf-8")


def _shown(value: Any) -> Any:
    """A name without marks that steer; what is marked as HTML already, and numbers, as they are."""
    return printable(value, keep="\n\t") if type(value) is str else value
