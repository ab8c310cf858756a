"""docs/speed.md's table of products in FP8, from benchmarks/results/fp8.json. Imports no jax."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.pages import compiled_by, header, line, put

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "speed.md"
RESULTS = ROOT / "benchmarks" / "results" / "fp8.json"
START, END = "<!-- python -m benchmarks.fp8 -->", "<!-- end of benchmarks.fp8 -->"
NOMINAL = 2.0  # times as many operations a second as in bfloat16, by the maker
COLUMNS = (
    "bfloat16, ms",
    "of it products that FP8 takes",
    "FP8 adds beside them",
    "breaks even at",
    "step at twice the rate",
)


@dataclass(frozen=True)
class Row:
    """A step in bfloat16, and in FP8. Milliseconds."""

    model: str
    images: int
    blocks: int
    factors: str  # a `product.Factors`
    whole: float
    taken: float  # by products that are in FP8 in the other step, in bfloat16
    added: float  # what all else takes more than in bfloat16

    @property
    def even(self) -> float:
        """How many times as fast the products must be for both steps to take as long."""
        return self.taken / (self.taken - self.added)

    @property
    def faster(self) -> float:
        """How many times as fast the step is by the maker's figures."""
        return self.whole / (self.whole + self.added - self.taken * (1 - 1 / NOMINAL))


def table() -> str:
    """A line for each step in FP8."""
    return "\n".join(_lines())


def _lines() -> Iterator[str]:
    results = json.loads(RESULTS.read_text())
    yield from compiled_by(results["versions"])
    yield from header("first blocks, images, factors", *COLUMNS)
    for row in (Row(**each) for each in results["rows"]):
        cells = (f"{row.whole:.1f}", f"{row.taken:.1f}", f"{row.added:.1f}")
        ratios = (f"{row.even:.2f} times the rate", f"{row.faster:.2f} times as fast")
        name = f"{row.blocks} of {row.model}, {row.images}, {row.factors}"
        yield line(name, *cells, *ratios)


def write_page() -> None:
    put(PAGE, START, END, table())
