"""`fmjax data check`: a source looked at whole, before a run has cost anything."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.features import FeaturesConfig
from fmjax.config.model import ModelConfig
from fmjax.config.sets import DataCheckConfig
from fmjax.console import clock, console, counted
from fmjax.data.check.checkup import Embed, Part, Report, check
from fmjax.data.check.kinds import KINDS, SEVERITIES, Finding
from fmjax.data.check.neighbours import Near, untold
from fmjax.data.check.pictures import Seen
from fmjax.data.example import Examples
from fmjax.errors import DataError, Stopped, amount, escaped, printable
from fmjax.report.audit import write_page
from fmjax.targets import check_target

SHOWN = 3  # rows of a finding on the terminal


def main(config: DataCheckConfig) -> Report:
    """Prints what was found, as lines or as JSON, and returns it. Raises DataError where a run would stop."""
    page = (
        check_target(config.page, ".html", flag="--page", force=config.force)
        if config.page
        else None
    )
    done = 0

    def watched(seen: Iterator[Seen], total: int) -> Iterable[Seen]:
        nonlocal done
        # machines read what is printed: nothing but the record
        rows = seen if config.json else counted(((1, one) for one in seen), total, "images")
        for one in rows:
            yield one
            done += 1

    try:
        told = untold if config.json else _comparing
        report = check(config, watched, _embedding(config), told)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped after {done:,} images of {config.data.source}, having written nothing; run the same command again"
        ) from None
    if page is not None:
        write_page(page, report)
    _say(config, report, page)
    if report.errors:
        kinds = ", ".join(finding.kind for finding in report.errors)
        raise DataError(f"a run on {escaped(report.source)} would stop: {kinds}")
    return report


def _embedding(config: DataCheckConfig) -> Embed | None:
    """What computes embeddings; None where none are asked for, and then jax is not imported."""
    if not config.embed:
        return None
    from fmjax.programs.features import extract, network

    # a wrong name, or weights that cannot be had, are told before any picture is looked at
    model = ModelConfig(name=config.embed, checkpoint=config.checkpoint)
    asked = FeaturesConfig(model=model, data=config.data)
    found = network(asked)

    def embed(sets: list[Examples]) -> np.ndarray:
        return np.concatenate([one.features for one in extract(asked, sets, found)])

    return embed


def _comparing(blocks: Iterator[tuple[int, Near]], total: int) -> Iterator[Near]:
    """The blocks of a comparison of images with each other, having said after the first how long all take."""
    start = time.monotonic()
    count, first = next(blocks)
    seconds = (time.monotonic() - start) * (total / count - 1)
    if count < total:
        console.print(f"compare   {total:,} images with each other, about {clock(seconds)}")
    yield first
    # of the rest how far they are, and how long they still take
    yield from counted(blocks, total - count, "images")


def _say(config: DataCheckConfig, report: Report, page: Path | None) -> None:
    if config.json:
        sys.stdout.write(json.dumps(record(report), indent=2) + "\n")
        return
    for line in lines(report):
        console.print(line)
    if page is not None:
        console.print(f"page      {page}")


def record(report: Report) -> dict[str, Any]:
    """All of a report, for machines: every row of every finding."""
    # the names of the fields are those that scripts rely on
    parts = {role: _part(part, report.classes) for role, part in report.parts.items()}
    return {
        "source": report.source,
        "would_stop": bool(report.errors),
        "classes": list(report.classes),
        "parts": parts,
        "formats": report.formats,
        "widths": list(report.widths),
        "heights": list(report.heights),
        "mean": list(report.mean),
        "std": list(report.std),
        "sampled": report.sampled,
        "notes": list(report.notes),
        "findings": [_finding(finding) for finding in report.findings],
    }


def _part(part: Part, classes: tuple[str, ...]) -> dict[str, Any]:
    counts = dict(zip(classes, part.by_class.tolist(), strict=False))
    return {"images": part.images, "readable": part.readable, "by_class": counts}


def _finding(finding: Finding) -> dict[str, Any]:
    # names of files are a stranger's text: they go into terminals, too
    kind = KINDS[finding.kind]
    return {
        "kind": finding.kind,
        "severity": kind.severity,
        "count": finding.count,
        "says": kind.says,
        "fix": kind.fix,
        "rows": [printable(row) for row in finding.rows()],
    }


def lines(report: Report) -> list[str]:
    """A report in words: what there is, then each kind of finding with a few of its rows."""
    counts = [f"{part.images:,} {role}" for role, part in report.parts.items()]
    # a source that is refused as a whole may still have parts, as a folder has
    told = ", ".join(counts) or "nothing that can be looked at"
    classes = amount(len(report.classes), "class", "classes")
    out = [f"source    {escaped(report.source)}: {told}, {classes}"]
    if report.formats:
        out += [_pictures(report), _values(report)]
    out += [f"note      {note}" for note in report.notes]
    # what a run would stop for comes first, as the report has it; all rows are in --json
    for finding in report.findings:
        kind = KINDS[finding.kind]
        out.append(f"{kind.severity:<10}{finding.count:,} {kind.says}; {kind.fix} [{finding.kind}]")
        out += [f"            {row}" for row in finding.rows(SHOWN)]
        if finding.count > SHOWN:
            out.append(f"            and {finding.count - SHOWN:,} more")
    return [*out, verdict(report)]


def _pictures(report: Report) -> str:
    formats = ", ".join(f"{count:,} {name}" for name, count in report.formats.items())
    (w0, _, w2, _, w4), (h0, _, h2, _, h4) = report.widths, report.heights
    wide, high = f"{w0} to {w4} wide, half up to {w2}", f"{h0} to {h4} high, half up to {h2}"
    return f"pictures  {formats}; {wide}; {high}"


def _values(report: Report) -> str:
    mean, std = (" ".join(f"{x:.3f}" for x in row) for row in (report.mean, report.std))
    return (
        f"values    mean {mean}, standard deviation {std}, over {amount(report.sampled, 'picture')}"
    )


def verdict(report: Report) -> str:
    """How many kinds of each severity there are, in a line."""
    found = [finding.severity for finding in report.findings]
    if not found:
        return "result    nothing to mend"
    told = [_kinds(found.count(name), name) for name in SEVERITIES if name in found]
    return f"result    {', '.join(told)}"


def _kinds(count: int, name: str) -> str:
    return f"{amount(count, 'kind')} of {name}"
