"""docs/scaling.md's tables, from benchmarks/results/meshes.json. Imports no jax."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.meshes import scaling
from benchmarks.meshes.cases import LARGEST, MODELS, SCALED, SCALES, in_loop
from benchmarks.pages import header, line, put

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "scaling.md"
RESULTS = ROOT / "benchmarks" / "results" / "meshes.json"
Row = dict[str, Any]
EXCHANGED = ("model, mesh", "exchange in a layer", "over", "dtype", "times", "MB each")
STEP = (
    "model",
    "mesh",
    "images a device",
    "GiB (state)",
    "computing, ms",
    "exchanging, ms",
    "not hidden, ms",
    "images/s of a device",
    "efficiency",
)
PREDICTED = (
    "model",
    "devices",
    "computing, ms",
    "GB sent in a machine",
    "GB to others",
    "exchanging, ms",
    "not hidden, ms: by blocks, as scheduled",
    "efficiency, by blocks",
    "as scheduled",
    "one by one",
)


def results() -> list[Row]:
    """What is there already."""
    return json.loads(RESULTS.read_text())["rows"] if RESULTS.exists() else []


def again() -> list[Row]:
    """Those whose blocks are computed again."""
    return [row for row in results() if row["remat"] == "full"]


def memory() -> Iterator[str]:
    """GiB of each model on each mesh."""
    found = {(row["model"], row["data"], row["fsdp"], row["tensor"]): row for row in again()}
    meshes = dict.fromkeys((row["data"], row["fsdp"], row["tensor"]) for row in again())
    yield from header("model", *(" x ".join(map(str, sizes)) for sizes in meshes))
    for model in MODELS:
        yield line(_short(model), *(_gib(found.get((model, *sizes))) for sizes in meshes))


def exchanged() -> Iterator[str]:
    """What travels in one layer, forward and backward together."""
    yield from header(*EXCHANGED)
    for row in again():
        if row["model"] in LARGEST and row["devices"] > 1:
            yield from _layer(row)
    # of the others all machines of eight
    for row in again():
        others = row["model"] in SCALED and row["model"] not in LARGEST
        if others and (row["data"], row["fsdp"]) in SCALES:
            yield from _layer(row)


def predicted() -> Iterator[str]:
    """How a step must go on one machine and on more, for as many images a device."""
    found = {(row["model"], row["data"], row["fsdp"]): row for row in again() if _whole(row)}
    yield from header(*PREDICTED)
    for model in SCALED:
        for sizes in SCALES:
            row = found[(model, *sizes)]
            cells = scaling.told(scaling.predicted(row))
            yield line(_short(model), str(row["devices"]), *cells)


def usual() -> Iterator[str]:
    """A step without flags, on one device and on eight."""
    yield from header(*STEP)
    for row in results():
        if row["remat"] == "auto":
            yield line(*_step(row))


def _step(row: Row) -> Iterator[str]:
    found = scaling.predicted(row)
    yield _short(row["model"])
    yield f"{row['data']} x {row['fsdp']}"
    yield str(row["batch"])
    yield _gib(row)
    yield f"{found.computing:.0f}"
    yield f"{found.exchanging:.1f}"
    yield f"{found.scheduled:.1f}"
    yield f"{row['batch'] * 1e3 / (found.computing + found.scheduled):,.0f}"
    yield f"{100 * found.as_scheduled:.1f} %"


def _whole(row: Row) -> bool:
    return row["tensor"] == 1


def _short(model: str) -> str:
    return model.partition(".")[0]


def _gib(row: Row | None) -> str:
    if row is None:
        return ""
    gib = row["GiB"]
    return f"{gib['total']:.1f} ({gib['arguments']:.1f})"


def _layer(row: Row) -> Iterator[str]:
    """Rows of a table for what a layer exchanges, but for vectors of biases and norms."""
    title = f"{_short(row['model'])}, {row['data']} x {row['fsdp']} x {row['tensor']}"
    for each in row["collectives"]:
        if in_loop(each["trips"], row["depth"]) and each["bytes"] > 1e6:
            times = each["count"] // each["trips"]
            size, axes = f"{each['bytes'] / 1e6:.1f}", " x ".join(each["axes"])
            yield line(title, each["kind"], axes, each["dtypes"], str(times), size)
            title = ""


# Part of the page -> its lines
TABLES: dict[str, Callable[[], Iterator[str]]] = {
    "memory": memory,
    "usual": usual,
    "exchanges": exchanged,
    "scaling": predicted,
}


def marks(name: str) -> tuple[str, str]:
    """What a table stands between."""
    return f"<!-- python -m benchmarks.meshes: {name} -->", f"<!-- end of {name} -->"


def write_page() -> None:
    for name, lines in TABLES.items():
        put(PAGE, *marks(name), "\n".join(lines()))
