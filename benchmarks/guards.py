"""What the check of every step's numbers costs: the step as it is and one that takes every update, in turn.

python benchmarks/guards.py  ->  benchmarks/results/guards.json
"""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh

import fmjax
from fmjax.config import DataConfig, ModelConfig, RunConfig
from fmjax.config.presets import load_preset
from fmjax.data.batches import train_batches
from fmjax.data.sources import open_source
from fmjax.data.split import divide
from fmjax.engine import step
from fmjax.engine.backbone import build
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import Plan
from fmjax.engine.run import start_params
from fmjax.engine.state import State, begin
from fmjax.programs.finetune import planned
from fmjax.sharding import make_mesh

OUT = Path(__file__).parent / "results" / "guards.json"
DIGITS = DataConfig(source="digits", crop_scale=1.0, flip=0.0)
QUICKSTART = replace(load_preset("quickstart"), compare_random=False)
SMALL = RunConfig(
    model=ModelConfig(name="augreg_vit_small_patch16_224.augreg_in21k", init="random"),
    data=DIGITS,
    batch_size=8,
)
# of each the pairs that are timed, and the steps that are timed together
CASES = {"quickstart, batch 64": (QUICKSTART, 15, 4), "ViT-S/16, batch 8": (SMALL, 9, 1)}


def every_update(finite: Any, new: Any, old: Any) -> Any:
    """In the place of the choice: without it the compiler leaves the check out too."""
    return new


def started(config: RunConfig) -> tuple[Plan, Mesh, State, dict[str, Any]]:
    """The plan of a run on one device, its first state and its first batch."""
    mesh = make_mesh(devices=jax.devices()[:1])
    images = divide(open_source(config.data), config.data, None)
    backbone = build(config, mesh)
    plan = planned(config, backbone, images)
    state = begin(plan, start_params(plan.task, backbone, plan.labels, config.seed, mesh), mesh)
    batches = train_batches(
        images.train, plan.task.view, config.data, batch_size=config.batch_size, seed=0
    )
    return plan, mesh, state, on_mesh(next(batches), mesh)


def functions(config: RunConfig) -> tuple[Any, Any, State, dict[str, Any]]:
    """The step as it is, the one without the choice, a state and a batch."""
    plan, mesh, state, batch = started(config)
    guarded = step.compiled(plan, mesh).step.lower(state, batch).compile()
    before, step.kept = step.kept, every_update
    jax.clear_caches()
    plain = step.compiled(plan, mesh).step.lower(state, batch).compile()
    step.kept = before
    return guarded, plain, state, batch


def measured(config: RunConfig, pairs: int, steps: int) -> dict[str, Any]:
    """Medians over pairs of seconds a step, and of their ratio."""
    guarded, plain, state, batch = functions(config)
    seconds: dict[str, list[float]] = {"guarded": [], "plain": []}
    for number in range(pairs + 1):
        for name, function in (("guarded", guarded), ("plain", plain)):
            start = time.process_time()
            for _ in range(steps):
                state, logs = function(state, batch)
            jax.block_until_ready(logs)
            # the first pair warms up
            if number:
                seconds[name].append((time.process_time() - start) / steps)
    ratios = [a / b for a, b in zip(seconds["guarded"], seconds["plain"], strict=True)]
    medians = {name: round(statistics.median(found), 4) for name, found in seconds.items()}
    return {**medians, "ratio": round(statistics.median(ratios), 4), "pairs": pairs}


def main() -> None:
    found = {name: measured(*case) for name, case in CASES.items()}
    versions = {"fmjax": fmjax.__version__, "jax": jax.__version__}
    OUT.write_text(
        json.dumps({"machine": platform.machine(), **versions, "cases": found}, indent=1)
    )
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
