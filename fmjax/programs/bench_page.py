"""What `fmjax bench` shows to people: what the figures depend on, a table, and why a row has none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from fmjax.bench.rows import Figures, Limits, Row, figures
from fmjax.console import Column, console, show_page, show_table
from fmjax.errors import in_gib
from fmjax.models.peaks import TERA

UNKNOWN = "n/a"
MILLI = 1e3

Cell = Callable[[Row, Figures], str]


def show(head: dict[str, Any], rows: list[Row], limits: Limits) -> None:
    """Prints all of it."""
    show_page(head["model"], facts(head, limits))
    console.print("")
    # reasons are sentences, for which a cell is too narrow
    timed = [row for row in rows if not row.failed]
    if timed:
        show_table(columns(timed, limits))
    for row in rows:
        if row.failed:
            console.print(f"{UNKNOWN}     {row.kind}: {row.failed}")


def facts(head: dict[str, Any], limits: Limits) -> Iterator[tuple[str, str]]:
    """What the figures depend on, as (title, text)."""
    height, width = head["image_size"]
    yield "device", f"{_device(head)}, {head['cores']} cores"
    yield (
        "computes",
        f"{head['batch_size']} images of {height} x {width} at a time, in {head['dtype']}",
    )
    # both limits, as a share of the one says more of a device, of the other more of a program
    yield "nominal", _nominal(head, limits)
    yield (
        "product",
        _limit(
            limits.product,
            "the fastest product of matrices in this call",
            "not timed; --kinds product does",
        ),
    )
    for lever in head["levers"]:
        yield lever["name"], _lever(lever)
    yield "versions", ", ".join(f"{name} {each}" for name, each in head["versions"].items() if each)
    # whoever compares seconds of compiling has to know that some of it was only read
    if head["compile_cache"]:
        yield "compiled", f"may have come from {head['compile_cache']}, which shortens compiling"


def _device(head: dict[str, Any]) -> str:
    """The device, and what its driver tells of it."""
    told = [head["device"]]
    if head["devices"] > 1:
        told.append(f"one of {head['devices']}")
    if head["device_bytes"]:
        told.append(f"{in_gib(head['device_bytes'])} for a run")
    told += [
        f"{name} {head['gpu'][name]}" for name in ("driver_version", "power.limit") if head["gpu"]
    ]
    return ", ".join(told)


def _nominal(head: dict[str, Any], limits: Limits) -> str:
    """The peak by the device's maker, of which MFU is a share."""
    lacks = f"no peak of {head['device']} in {head['dtype']} is known"
    return _limit(limits.nominal, "by its maker's sheet", lacks)


def _limit(rate: float | None, whose: str, lacks: str) -> str:
    return f"{UNKNOWN}: {lacks}" if rate is None else f"{rate / TERA:,.4g} TFLOP/s, {whose}"


def _lever(lever: dict[str, str]) -> str:
    """What a lever is at, who said so, and why it is at nothing faster."""
    how = "" if lever["asked"] == lever["on"] else f", by {lever['asked']}"
    why = f": {lever['why']}" if lever["why"] else ""
    return f"{lever['on']}{how}{why}"


def columns(rows: list[Row], limits: Limits) -> list[Column]:
    """The table of what was timed. Where a row has no such figure a cell is empty; n/a is what is not known."""
    found = [(row, figures(row, limits)) for row in rows]
    return [
        Column("timed", [row.kind for row in rows]),
        Column("of", [row.what for row in rows]),
        *(
            Column(title, [cell(*pair) for pair in found], rank=rank, right=True)
            for title, rank, cell in COLUMNS
        ),
    ]


def _milliseconds(row: Row, found: Figures) -> str:
    return "" if row.timing is None else f"{row.timing.median * MILLI:,.4g}"


def _spread(row: Row, found: Figures) -> str:
    # once is no spread
    if row.timing is None or row.timing.rounds == 1:
        return ""
    return f"{row.timing.least * MILLI:,.4g} to {row.timing.most * MILLI:,.4g}"


def _images(row: Row, found: Figures) -> str:
    return "" if found.images_per_s is None else f"{found.images_per_s:,.4g}"


def _rate(row: Row, found: Figures) -> str:
    return "" if found.flops_per_s is None else f"{found.flops_per_s / TERA:,.3g}"


def _share(share: float | None, found: Figures) -> str:
    """A share of what could be; unknown only where there is a rate to compare."""
    if share is not None:
        return f"{share:.1%}"
    return "" if found.flops_per_s is None else UNKNOWN


def _memory(row: Row, found: Figures) -> str:
    return "" if row.memory_bytes is None else in_gib(row.memory_bytes)


def _compiling(row: Row, found: Figures) -> str:
    if row.compiling_s is None:
        return ""
    return f"{(row.lowering_s or 0.0) + row.compiling_s:.2f}"


# title, rank (the highest goes first where a terminal is narrow), and what stands in a row
COLUMNS: tuple[tuple[str, int, Cell], ...] = (
    ("ms", 0, _milliseconds),
    ("least to most", 3, _spread),
    ("images/s", 0, _images),
    ("TFLOP/s", 2, _rate),
    ("of nominal", 1, lambda row, found: _share(found.mfu, found)),
    ("of product", 4, lambda row, found: _share(found.of_product, found)),
    ("memory", 5, _memory),
    ("compiling, s", 6, _compiling),
)
