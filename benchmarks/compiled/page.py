"""docs/speed.md's table of what is predicted, from benchmarks/results/compiled.json. Imports no jax."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.pages import compiled_by, header, line, part, put

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "compiled.json"
START, END = "<!-- python -m benchmarks.compiled -->", "<!-- end of benchmarks.compiled -->"
TITLES = {"train": "training", "forward": "forward"}
# Kinds of kernels, as `roofline.kinds` has them; attention is both of its own
KINDS = ("products", "elementwise", "the stack", "zero-filling", "scores", "outside blocks")
ATTENTION = ("attention forward", "attention backward")
COLUMNS = (
    "predicted ms",
    "images/s",
    "over its products",
    *KINDS,
    "attention",
    "kernels a layer",
    "GB a layer",
    "temporary GiB",
)


def table(results: Path = RESULTS) -> str:
    """The rows, those of a model below each other."""
    found = json.loads(results.read_text())
    # what a test holds alone is no row
    whole = [row for row in found["rows"] if "blocks" not in row]
    return "\n".join(_lines(whole, found["versions"]))


def _lines(rows: list[dict[str, Any]], versions: dict[str, str]) -> Iterator[str]:
    yield from compiled_by(versions)
    yield from header("", *COLUMNS)
    for title in dict.fromkeys(map(_title, rows)):
        yield part(title, len(COLUMNS))
        for row in rows:
            if _title(row) == title:
                yield line(_options(row), *_cells(row))


def _title(row: dict[str, Any]) -> str:
    return f"{TITLES[row['kind']]}, {row['model']}, {row['batch']} images"


def _options(row: dict[str, Any]) -> str:
    told = ", ".join(f"{name} {value}" for name, value in row["options"].items())
    return told.replace(" True", "") or "the defaults"


def _cells(row: dict[str, Any]) -> Iterator[str]:
    ms, layer = row["ms"], row["layer"]
    yield f"{row['predicted_ms']:.1f}"
    yield f"{row['batch'] / row['predicted_ms'] * 1e3:,.0f}"
    yield f"{row['predicted_ms'] / ms['products']:.2f}"
    for kind in KINDS:
        yield f"{ms.get(kind, 0.0):.1f}"
    yield f"{sum(ms.get(kind, 0.0) for kind in ATTENTION):.1f}"
    yield f"{layer['kernels']:.0f}"
    yield f"{layer['gigabytes']:.2f}"
    yield f"{row['temporary_gib']:.1f}"


def write_page() -> None:
    put(PAGE, START, END, table())
