"""Runs for tests: short ones from the command line, and one that is ready for its first step, without a folder."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from fmjax.config.run import RunConfig
from fmjax.data.batches import train_batches
from fmjax.data.sources import open_source
from fmjax.data.split import divide
from fmjax.engine.backbone import build
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import Plan
from fmjax.engine.run import start_params
from fmjax.engine.state import State, begin
from fmjax.engine.step import Compiled, compiled
from fmjax.models.vit import ViT
from fmjax.programs.finetune import planned

# of a run from the command line: a few steps, scored, saved and logged on the way
SHORT = [
    "--steps",
    "6",
    "--batch-size",
    "16",
    "--eval-every",
    "3",
    "--save-every",
    "2",
    "--log-every",
    "1",
]


def quickstart(out: Path, *flags: str) -> subprocess.Popen[str]:
    """Starts a run of the quickstart in a process of its own, which can be signalled."""
    command = [sys.executable, "-m", "fmjax.cli", "finetune", "quickstart", "--out", str(out)]
    pipe = subprocess.PIPE
    return subprocess.Popen([*command, *flags], stdout=pipe, stderr=pipe, text=True)


def rows(run: Path) -> list[dict[str, Any]]:
    """What a run has logged."""
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run: Path) -> list[tuple[int, float, float | None]]:
    """Step, loss and norm of the gradient, where it was finite: what a resumed run has to come to again."""
    return [(row["step"], row["loss"], row.get("grad_norm")) for row in rows(run) if "loss" in row]


@dataclass
class Started:
    """A plan on a mesh, its first state and its batches."""

    plan: Plan
    mesh: Mesh
    state: State
    functions: Compiled
    batches: Iterator[Any]

    def batch(self) -> dict[str, Any]:
        return on_mesh(next(self.batches), self.mesh)

    def losses(self, steps: int) -> list[float]:
        """Those of the next steps."""
        found = []
        for _ in range(steps):
            self.state, logs = self.functions.step(self.state, self.batch())
            found.append(float(logs["loss"]))
        return found


def started(config: RunConfig, mesh: Mesh, backbone: ViT | None = None) -> Started:
    """A run of a config. backbone: instead of the config's own."""
    images = divide(open_source(config.data), config.data, None)
    backbone = build(config, mesh) if backbone is None else backbone
    plan = planned(config, backbone, images)
    state = begin(plan, start_params(plan.task, backbone, plan.labels, config.seed, mesh), mesh)
    everything = open_source(config.data).train
    batches = train_batches(
        everything, plan.task.view, config.data, batch_size=config.batch_size, seed=0
    )
    return Started(plan, mesh, state, compiled(plan, mesh), batches)
