"""A step of training, and a forward pass of many tokens, beside timm's on one core of a CPU, float32.

python benchmarks/steps.py [ROUNDS]  ->  benchmarks/results/steps.json and its table in docs/speed.md (--table: that
alone)

Processor time of one thread each: OpenMP's threads wait busily, which is counted, where others use the machine too.
fmjax's step is the engine's: AdamW, clipping, the check of every gradient, bytes of pictures normalised on the device.
timm's, eager: AdamW in one kernel and clipping, of images that are normalised already. Medians over rounds in which
every case has its turn.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import facts, on_one_core
from turns import in_turn

ROOT = Path(__file__).parents[1]
OUT = Path(__file__).with_name("results") / "steps.json"
PAGE = ROOT / "docs" / "speed.md"
START, END = "<!-- benchmarks/steps.py -->", "<!-- end of benchmarks/steps.py -->"
ROUNDS = 7
CLASSES = 1000
Run = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A network and a batch, by the names of both libraries."""

    name: str
    timm: str
    side: int  # pixels
    batch: int  # images
    kept: tuple[str, ...]  # what fmjax's blocks keep for the backward pass; none: a forward pass

    @property
    def told(self) -> str:
        what = "a step" if self.kept else "a forward pass"
        return f"{what} of {self.timm}, {self.side} pixels, batch {self.batch}"


SMALL = ("augreg_vit_small_patch16_224.augreg_in21k", "vit_small_patch16_224")
DINO = ("dinov2_vits14.lvd142m", "vit_small_patch14_dinov2")
CASES = (
    Case(*SMALL, side=224, batch=8, kept=("dots", "none")),
    Case(*DINO, side=518, batch=1, kept=("dots", "none")),
    Case(*DINO, side=518, batch=1, kept=()),
)


def ours(case: Case, kept: str) -> Run:
    """A step of the engine on noise, or a forward pass."""
    import jax

    from fmjax.bench import compiled, noise
    from fmjax.bench.plans import planned
    from fmjax.config.model import ModelConfig
    from fmjax.config.run import RunConfig
    from fmjax.engine.backbone import outlined, preprocessing
    from fmjax.sharding import make_mesh

    model = ModelConfig(name=case.name, init="random", image_size=(case.side, case.side))
    config: Any = RunConfig(model=model, batch_size=case.batch, remat=kept or "auto")  # pyright: ignore[reportArgumentType]
    mesh = make_mesh(devices=jax.devices()[:1])
    if kept:
        step = compiled.Step(planned(config, mesh), mesh)
        step.begin()
        return lambda: step.run(1)
    images = preprocessing(config)
    embed, shapes = compiled.embedder(outlined(config, mesh), images)
    pictures = noise.pictures(case.batch, images.image_size)
    ready = compiled.ready(embed, noise.filled(shapes), jax.numpy.asarray(pictures))
    return lambda: ready.run(1)


def timms(case: Case) -> Run:
    """The same in torch, eager."""
    sys.path.insert(0, str(ROOT))
    from tests.support import torch_reference  # noqa: F401  what torchvision lacks is declared

    # after it
    import timm  # isort: skip
    import torch

    torch.set_num_threads(1)
    classes = CLASSES if case.kept else 0
    net = timm.create_model(case.timm, num_classes=classes, img_size=case.side)
    images = torch.randn(case.batch, 3, case.side, case.side)

    def forward() -> object:
        with torch.inference_mode():
            return net.eval()(images)

    adam = torch.optim.AdamW(net.parameters(), lr=1e-4, weight_decay=0.05, fused=True)
    labels = torch.zeros(case.batch, dtype=torch.long)

    def step() -> object:
        adam.zero_grad()
        torch.nn.functional.cross_entropy(net.train()(images), labels).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        return adam.step()

    return step if case.kept else forward


def measured(case: Case, rounds: int) -> dict[str, list[float]]:
    """Seconds of the processor by who computes."""
    runs = {"timm": timms(case)} | {kept: ours(case, kept) for kept in case.kept or ("",)}
    # a first round warms up
    in_turn(runs, 1)
    return in_turn(runs, rounds)


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """The rows of docs/speed.md."""
    lines = [
        "| seconds of one core | fmjax keeps | fmjax | timm, eager | speed over timm |",
        "|---|---|---|---|---|",
    ]
    for told, seconds in found.items():
        theirs = seconds["timm"]
        for kept, times in seconds.items():
            if kept == "timm":
                continue
            ratio = statistics.median(np.divide(theirs, times))
            pair = f"{statistics.median(times):.2f} | {statistics.median(theirs):.2f}"
            lines.append(f"| {told} | {kept} | {pair} | {ratio:.2f} |")
    return "\n".join(lines)


def main(rounds: int) -> None:
    on_one_core()
    found = {case.told: measured(case, rounds) for case in CASES}
    record = facts("jax", "flax", "torch", "timm") | {"cases": found}
    OUT.write_text(json.dumps(record, indent=1) + "\n")


def write_page() -> None:
    from pages import put

    put(PAGE, START, END, table(json.loads(OUT.read_text())["cases"]))


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    write_page()
