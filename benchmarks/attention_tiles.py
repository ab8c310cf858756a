"""fmjax's own kernel of attention beside cuDNN's, by the tiles of its programs, forward and backward.

python benchmarks/attention_tiles.py [--out FILE.json] [--seconds 80], on a GPU of NVIDIA. Arrays of
bfloat16 as the products before attention leave them; medians. errors: against cuDNN's results.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from fmjax.bench.compiled import Ready
from fmjax.bench.timing import SHORT_S, device_now, timed
from fmjax.kernels import cudnn, pallas_attention
from fmjax.kernels.attention import PALLAS_WIDEST
from fmjax.kernels.fused import swapped
from fmjax.kernels.pallas_attention import LOG2_E, Tiles
from fmjax.kernels.trust import apart

OUT = Path(__file__).parent / "results" / "attention_tiles.json"
Shape = tuple[int, int, int, int]  # images, heads, tokens, width of a head
# By importance: what is forward and what backward
TRIED: dict[Shape, tuple[list[Tiles], list[Tiles]]] = {
    (128, 16, 257, 64): (
        [Tiles(64, 32, 3), Tiles(64, 64, 3), Tiles(64, 128, 2), Tiles(128, 64, 3)],
        [Tiles(128, 32, 3), Tiles(64, 32, 3), Tiles(64, 64, 3), Tiles(128, 16, 3)],
    ),
    (128, 12, 197, 64): (
        [Tiles(64, 32, 3), Tiles(64, 64, 3), Tiles(64, 128, 2)],
        [Tiles(128, 32, 3), Tiles(64, 32, 3), Tiles(64, 64, 3)],
    ),
    (64, 16, 577, 64): (
        [Tiles(64, 32, 3), Tiles(64, 64, 3), Tiles(64, 128, 2)],
        [Tiles(128, 32, 3), Tiles(64, 32, 3), Tiles(64, 64, 3)],
    ),
    (64, 16, 257, 128): (
        [Tiles(64, 32, 3), Tiles(64, 64, 2), Tiles(128, 64, 2)],
        [Tiles(64, 64, 2), Tiles(64, 32, 3), Tiles(128, 32, 2)],
    ),
    (64, 16, 257, 88): ([Tiles(64, 32, 3), Tiles(128, 64, 2)], [Tiles(64, 64, 2)]),
    (64, 16, 257, 80): ([Tiles(64, 32, 3), Tiles(64, 64, 3)], [Tiles(64, 64, 2)]),
    (16, 16, 1370, 64): ([Tiles(64, 64, 3), Tiles(128, 64, 3)], [Tiles(128, 32, 3)]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=OUT, help="the results")
    parser.add_argument("--seconds", type=float, default=80, help="after which no case is begun")
    asked = parser.parse_args()
    until, rows = time.time() + asked.seconds, []
    head = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "device": device_now()}
    for shape, (forward, backward) in TRIED.items():
        if time.time() > until:
            break
        for row in measured(shape, forward, backward):
            rows.append({"shape": shape, **row})
            print(rows[-1], flush=True)
        write(asked.out, {**head, "versions": {"jax": jax.__version__}}, rows)


def write(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A line for each row."""
    lines = ",\n".join(json.dumps(row) for row in rows)
    path.write_text(f'{json.dumps(head)[:-1]}, "rows": [\n{lines}\n]}}\n')


def measured(shape: Shape, forward: list[Tiles], backward: list[Tiles]) -> Iterator[dict[str, Any]]:
    """cuDNN's kernels, and fmjax's with each of the tiles."""
    images, heads, tokens, width = shape
    keys = jax.random.split(jax.random.key(0), 4)
    given = [jax.random.normal(key, (images, tokens, heads, width), jnp.bfloat16) for key in keys]
    inputs, seed = given[:3], given[3]
    values = _of(cudnn._bound)
    y, lse = jax.jit(values)(*inputs)
    kept = (*inputs, y, lse, seed)
    gradients = jax.jit(_back(cudnn._gradients))(*kept)
    jobs = [
        ("forward", None, values, inputs, None),
        ("backward", None, _back(cudnn._gradients), kept, None),
    ]
    own_values = _of(pallas_attention._values)
    jobs += [("forward", tiles, own_values, inputs, [y]) for tiles in forward]
    # fmjax's sums are binary logarithms
    own = (*inputs, y, lse * LOG2_E, seed)
    back = _back(pallas_attention._gradients)
    jobs += [("backward", tiles, back, own, gradients) for tiles in backward]
    lowered = [_lowered(*job[:4]) for job in jobs]
    with ThreadPoolExecutor() as pool:
        ready = list(pool.map(lambda each: each.compile(), lowered))
    for (way, tiles, _, arrays, expected), function in zip(jobs, ready, strict=True):
        row = {"way": way, "kernel": "cudnn" if tiles is None else tiles._asdict()}
        timing = timed(Ready(function, arrays, 0.0, 0.0).run, seconds=SHORT_S)
        row["ms"] = round(timing.median * 1e3, 4)
        if expected is not None:
            pairs = zip(function(*arrays), expected, strict=False)
            errors = (apart(ours, theirs.astype(jnp.float32)) for ours, theirs in pairs)
            row["errors"] = [round(float(error), 5) for error in errors]
        yield row


def _of(values: Callable[..., Any]) -> Callable[..., Any]:
    """A forward pass of arrays [B L N K]."""

    def computed(*inputs: Any) -> Any:
        y, lse = values(*map(swapped, inputs), trained=True)
        return swapped(y), lse

    return computed


def _back(gradients: Callable[..., Any]) -> Callable[..., Any]:
    """A backward pass of arrays [B L N K], but for the sums."""

    def computed(q: Any, k: Any, v: Any, y: Any, lse: Any, seed: Any) -> Any:
        found = gradients(*map(swapped, (q, k, v, y)), lse, swapped(seed))
        return [swapped(x) for x in found]

    return computed


def _lowered(way: str, tiles: Tiles | None, function: Callable[..., Any], arrays: Any) -> Any:
    if tiles is not None:
        table = {"forward": "FORWARD", "backward": "BACKWARD"}[way]
        setattr(pallas_attention, table, {PALLAS_WIDEST: tiles})
    # a function of its own: one that was traced before has other tiles
    return jax.jit(lambda *given: function(*given)).lower(*arrays)


if __name__ == "__main__":
    main()
