"""Attention alone on one core of a CPU, beside torch's, float32: all heads at once, computed again on the way back, and
head after head, as many tokens have it.

python -m benchmarks.cpu_attention [ROUNDS]  ->  benchmarks/results/cpu_attention.json and its table in docs/speed.md
(--table: that alone)

Processor time, medians over rounds in which every way has its turn. Values of all ways are compared first.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import facts, on_one_core
from benchmarks.pages import header, line, put
from benchmarks.turns import in_turn

ROOT = Path(__file__).parents[1]
OUT = ROOT / "benchmarks" / "results" / "cpu_attention.json"
PAGE = ROOT / "docs" / "speed.md"
START, END = (
    "<!-- python -m benchmarks.cpu_attention -->",
    "<!-- end of benchmarks.cpu_attention -->",
)
ROUNDS = 9
WIDTH = 64  # of a head
# images, heads and tokens
SHAPES = ((1, 6, 1370), (4, 6, 1370), (2, 12, 577), (2, 6, 577))
PASSES = {"forward": False, "both ways": True}  # whether gradients are computed
TORCH, AT_ONCE, AGAIN, BY_HEAD = "torch's SDPA", "all at once", "computed again", "head after head"
WAYS = (AT_ONCE, AGAIN, BY_HEAD, TORCH)
CLOSE = 1e-5  # of values, of the greatest
Run = Callable[[], np.ndarray]


def by_jax(attend: Callable[..., Any], arrays: list[np.ndarray], *, trained: bool) -> Run:
    """The values, or the gradients of q, k and v; what it returns is the first image's, of q."""
    import jax

    def gradients(q: Any, k: Any, v: Any, gradient: Any) -> Any:
        return jax.vjp(attend, q, k, v)[1](gradient)

    def values(q: Any, k: Any, v: Any, gradient: Any) -> Any:
        return (attend(q, k, v),)

    placed = jax.device_put(arrays)
    program = jax.jit(gradients if trained else values).lower(*placed).compile()
    return lambda: np.asarray(jax.block_until_ready(program(*placed))[0])[0]


def by_torch(arrays: list[np.ndarray], *, trained: bool) -> Run:
    """The same of torch, eager."""
    import torch

    torch.set_num_threads(1)
    attend = torch.nn.functional.scaled_dot_product_attention
    *given, gradient = map(torch.from_numpy, arrays)
    given = [x.requires_grad_(trained) for x in given]

    def values() -> np.ndarray:
        with torch.inference_mode():
            return attend(*given)[0].numpy()

    def gradients() -> np.ndarray:
        return torch.autograd.grad(attend(*given), given, gradient)[0][0].numpy()

    return gradients if trained else values


def runs(shape: tuple[int, int, int], *, trained: bool) -> dict[str, Run]:
    """Every way of a shape."""
    import jax

    from fmjax.kernels import xla

    rng = np.random.default_rng(0)
    # q, k, v and the gradient behind them
    arrays = [rng.standard_normal((*shape, WIDTH), np.float32) for _ in range(4)]
    ways = {AT_ONCE: xla.attend, AGAIN: jax.checkpoint(xla.attend), BY_HEAD: xla.by_head}
    if not trained:
        del ways[AGAIN]
    found = {name: by_jax(way, arrays, trained=trained) for name, way in ways.items()}
    return found | {TORCH: by_torch(arrays, trained=trained)}


def measured(rounds: int) -> list[dict[str, Any]]:
    """Seconds of every way of every shape, in each pass."""
    rows = []
    for told, trained in PASSES.items():
        for shape in SHAPES:
            ways = runs(shape, trained=trained)
            values = {name: run() for name, run in ways.items()}
            expected = values[TORCH]
            for name, found in values.items():
                apart = np.abs(found - expected).max() / np.abs(expected).max()
                if not apart <= CLOSE:
                    raise SystemExit(f"{name}, {told}, {shape}: {apart} apart from torch's")
            rows.append({"pass": told, "shape": shape, "seconds": in_turn(ways, rounds)})
    return rows


def table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Milliseconds of each way, and the speed of the one that is used over torch's."""
    yield from header("images, heads, tokens", *WAYS, "head after head over torch's")
    for row in rows:
        seconds = row["seconds"]
        shown = [
            f"{statistics.median(seconds[name]) * 1e3:.0f}" if name in seconds else ""
            for name in WAYS
        ]
        ratio = statistics.median(np.divide(seconds[TORCH], seconds[BY_HEAD]))
        told = f"{', '.join(map(str, row['shape']))}: {row['pass']}"
        yield line(told, *shown, f"{ratio:.2f}")


def main(rounds: int) -> None:
    on_one_core()
    rows = measured(rounds)
    record = facts("jax", "torch") | {"rows": rows}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


def write_page() -> None:
    put(PAGE, START, END, "\n".join(table(json.loads(OUT.read_text())["rows"])))


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    write_page()
