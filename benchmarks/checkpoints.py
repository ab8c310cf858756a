"""What it costs that a checkpoint can be trusted: python benchmarks/checkpoints.py FOLDER

A state of ViT-B/16 (parameters and two moments, 1.03 GB) is saved, verified and restored, and each part of that is
timed alone; the page cache is warm. The lock and a look at the process's signals are timed beside. Medians; results:
benchmarks/results/checkpoints.json.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import fmjax
from fmjax.engine import checkpoint, manifest, steps
from fmjax.engine.checkpoint import Checkpoints
from fmjax.engine.digests import digests
from fmjax.engine.guard import fresh
from fmjax.engine.lock import held
from fmjax.engine.signals import Stopping
from fmjax.engine.state import State
from fmjax.models.build import param_shapes
from fmjax.trees import nested

REPEATS = 5


def state() -> State:
    """ViT-B/16 with Adam's moments, of random numbers."""
    rng = np.random.default_rng(0)

    def tree() -> Any:
        shapes = param_shapes(fmjax.get_spec("ViT-B-16"))
        leaves = {path: rng.standard_normal(shape, np.float32) for path, shape in shapes.items()}
        return jax.tree.map(jnp.asarray, nested({f"backbone.{k}": v for k, v in leaves.items()}))

    opt = {"mu": tree(), "nu": tree()}
    return State(jnp.array(1), tree(), {}, opt, jnp.arange(2, dtype=jnp.uint32), fresh())


def timed(work: Callable[[], Any]) -> float:
    """Median seconds, after one that is not counted."""
    seconds = []
    for _ in range(REPEATS + 1):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[1:])


def main(folder: Path) -> None:
    whole = state()
    items = {"params": whole.params, "opt": whole.opt}
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(items))
    shutil.rmtree(folder, ignore_errors=True)
    checkpoints = Checkpoints(folder, keep=1)
    blocked, total, number = [], [], 0

    def save() -> None:
        nonlocal number
        number += 1
        start = time.perf_counter()
        checkpoints.save(number, whole, {"position": 1})
        blocked.append(time.perf_counter() - start)
        checkpoints.wait()
        total.append(time.perf_counter() - start)

    timed(save)
    place = steps.folder(folder, number)
    found = {
        "save, until training goes on": statistics.median(blocked[1:]),
        "save, until it counts": statistics.median(total[1:]),
        "of it: digests of the arrays": timed(lambda: digests(items)),
        "of it: list of the files": timed(lambda: manifest.write(place)),
        "verify the files": timed(lambda: manifest.flaw(place)),
        "restore, all compared": timed(lambda: checkpoint.restore(folder, number, whole)),
        "fmjax ckpt verify": timed(lambda: checkpoint.flaw(folder, number)),
    }
    checkpoints.close()

    def locked() -> None:
        with held(folder):
            pass

    stopping = Stopping()
    small = {"lock and unlock": timed(locked), "look for a signal": timed(stopping.check)}
    raw = {"bytes": size, "jax": jax.__version__, "seconds": found | small}
    Path(__file__).with_name("results").joinpath("checkpoints.json").write_text(
        json.dumps(raw, indent=1) + "\n"
    )
    for name, seconds in found.items():
        print(f"| {name} | {seconds:.2f} s | {size / seconds / 1e9:.2f} GB/s |")
    for name, seconds in small.items():
        print(f"| {name} | {seconds * 1e6:.0f} microseconds | |")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
