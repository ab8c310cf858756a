"""A page of what was found in a set of images: one file, without scripts, that needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import numpy as np

from fmjax.data.check.checkup import Report
from fmjax.data.check.kinds import KINDS, Finding
from fmjax.errors import amount, printable
from fmjax.serial import write_atomically

ROWS = 20  # of a finding; all of them are in the JSON
CLASSES = 200  # in the table
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60em; margin: 2em auto; padding: 0 1em; color: #222 }
h1 { font-size: 1.4em } h2 { font-size: 1.1em; margin-top: 2em }
table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: left; vertical-align: top }
td.n, th.n { text-align: right } code { font-size: .9em; overflow-wrap: anywhere }
.error { color: #b00020 } .warning { color: #9a6700 } .note { color: #57606a }
.bar { background: #4c78a8; height: .8em; min-width: 1px } summary { cursor: pointer }
"""


def write_page(path: Path, report: Report) -> None:
    """Writes a report as HTML, whole or not at all."""
    write_atomically(path, (f"{piece}\n" for piece in page(report)))


def page(report: Report) -> Iterator[str]:
    """The page in pieces."""
    # names in it can be anybody's: all of them go through `_text`
    title = _text(f"Check of {report.source}")
    yield f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
    yield f"<style>{STYLE}</style><h1>{title}</h1>"
    yield from _overview(report)
    yield "<h2>Findings</h2>"
    if not report.findings:
        yield "<p>Nothing to mend.</p>"
    for finding in report.findings:
        yield from _finding(finding)
    if report.classes and report.parts:
        yield "<h2>Images of each class that can be read</h2>"
        yield from _classes(report)
    yield "</html>"


def _text(text: str) -> str:
    """What may stand in HTML: no tags, and nothing that turns the direction of reading."""
    return escape(printable(text))


def _overview(report: Report) -> Iterator[str]:
    # parts first, then pictures, where any could be read
    yield "<table>"
    for role, part in report.parts.items():
        yield _row(role, f"{amount(part.images, 'image')}, {part.readable:,} of them readable")
    if report.formats:
        formats = ", ".join(f"{count:,} {name}" for name, count in report.formats.items())
        yield _row("formats", formats)
        yield _row("width", _sides(report.widths))
        yield _row("height", _sides(report.heights))
        yield _row("mean", f"{_numbers(report.mean)} (red, green, blue in 0..1)")
        deviation = f"{_numbers(report.std)} (over all pixels of {report.sampled:,} pictures)"
        yield _row("standard deviation", deviation)
    for note in report.notes:
        yield _row("note", note)
    yield "</table>"


def _row(name: str, value: str) -> str:
    return f"<tr><th>{_text(name)}<td>{_text(value)}"


def _sides(sides: tuple[int, ...]) -> str:
    low, quarter, half, most, high = sides
    return f"{low} to {high} pixels; half of them {quarter} to {most}, the middle one {half}"


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3f}" for value in values)


def _finding(finding: Finding) -> Iterator[str]:
    kind = KINDS[finding.kind]
    # errors are open: they are what a person came for
    opened = " open" if kind.severity == "error" else ""
    yield f'<details{opened}><summary><b class="{kind.severity}">{kind.severity}</b> '
    yield f"{finding.count:,} {_text(kind.says)}; {_text(kind.fix)}</summary><ul>"
    for row in finding.rows(ROWS):
        yield f"<li><code>{_text(row)}</code>"
    if finding.count > ROWS:
        yield f"<li>and {finding.count - ROWS:,} more, which <code>--json</code> lists"
    yield "</ul></details>"


def _classes(report: Report) -> Iterator[str]:
    heads = "".join(f'<th class="n">{_text(role)}' for role in report.parts)
    yield f"<table><tr><th>class{heads}<th>"
    counts = np.stack([part.by_class for part in report.parts.values()])  # parts, classes
    largest = max(int(counts.max(initial=0)), 1)
    # the smallest first: they are what a person looks for
    order = np.argsort(counts[0], kind="stable")[:CLASSES]
    for number in order:
        cells = "".join(f'<td class="n">{count:,}' for count in counts[:, number])
        width = 20 * counts[0, number] / largest
        bar = f'<div class="bar" style="width:{width:.2f}em"></div>'
        yield f"<tr><td>{_text(report.classes[number])}{cells}<td>{bar}"
    yield "</table>"
    if len(report.classes) > CLASSES:
        more = len(report.classes) - CLASSES
        yield f"<p>and {more:,} more classes, which <code>--json</code> lists</p>"
