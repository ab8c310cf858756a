"""docs/memory.md's tables, from benchmarks/results/memory.json."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.memory.cases import BATCHES, CARDS
from benchmarks.memory.fits import allotted, limit
from benchmarks.pages import compiled_by, header, line, part, put
from fmjax.engine.costs import Memory
from fmjax.engine.fitting import GIB

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "memory.md"
RESULTS = ROOT / "benchmarks" / "results" / "memory.json"
START, END = "<!-- python -m benchmarks.memory -->", "<!-- end of benchmarks.memory -->"


def table(results: Path = RESULTS) -> str:
    """The cards, and the rows, those of a model below each other."""
    found = json.loads(results.read_text())
    return "\n".join(_lines(found["rows"], found["versions"]))


def _lines(rows: list[dict[str, Any]], versions: dict[str, str]) -> Iterator[str]:
    yield from compiled_by(versions)
    yield from header("", "state", "one image", *CARDS)
    yield line("`--memory-gib`", "", "", *(f"{allotted(card):.1f}" for card in CARDS))
    yield line("a step may take", "", "", *(f"{limit(card) / GIB:.1f}" for card in CARDS))
    for model in dict.fromkeys(row["model"] for row in rows):
        yield part(model, len(CARDS) + 2)
        for row in rows:
            if row["model"] == model:
                yield line(*_cells(row))


def _cells(row: dict[str, Any]) -> Iterator[str]:
    """How, the state of a step, what an image more takes, and the most images for each card."""
    tried = takes(row)
    yield _flags(row)
    yield f"{tried[min(tried)].arguments / GIB:.1f}"
    yield _each_image(tried)
    for card in CARDS:
        batch = row["fits"][card]
        yield f"{batch:,} ({tried[batch].total / GIB:.1f})" if batch else "-"


def takes(row: dict[str, Any]) -> dict[int, Memory]:
    """Images -> what a step of so many takes, of those that were tried."""
    return {int(batch): Memory(**memory) for batch, memory in row["tried"].items()}


def _flags(row: dict[str, Any]) -> str:
    flags = f"`{row['kept']}`"
    kinds = [word for word in (row["trained"], row["computed"]) if word not in ("", "AdamW")]
    return ", ".join([flags, *kinds])


def _each_image(tried: dict[int, Memory]) -> str:
    """GiB that an image more takes in the largest two batches that fit something."""
    largest = sorted(batch for batch in tried if batch in BATCHES)[-2:]
    # where every card has room for the most, no other batch was tried
    if len(largest) < 2:
        return ""
    few, many = largest
    return f"{(tried[many].total - tried[few].total) / (many - few) / GIB:.2f}"


def write_page() -> None:
    put(PAGE, START, END, table())
