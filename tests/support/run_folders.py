"""Folders of runs that were never trained: records, a log and predictions, made by the functions that a run makes them
with."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fmjax
from fmjax.config.data import DataConfig
from fmjax.config.model import ModelConfig
from fmjax.config.run import RunConfig
from fmjax.data.sources import open_source
from fmjax.data.split import Images, divide
from fmjax.engine import predictions, records
from fmjax.engine.evaluate import Scores
from fmjax.preprocessing import preprocess_config

MODEL = "demo_vit_ti4.fashion_mnist"


def photographs(root: Path, classes: Sequence[str], count: int = 4) -> Path:
    """root/<class>/<number>.png, of a colour each."""
    rng = np.random.default_rng(0)
    for label in classes:
        folder = root / label
        folder.mkdir(parents=True)
        for number in range(count):
            pixels = np.full((40, 40, 3), rng.integers(0, 255, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    return root


def made(
    run: Path, source: str, *, steps: int = 8, at: int = 8, **changes: Any
) -> tuple[RunConfig, Images]:
    """The records of a run and its log, up to a step."""
    config = RunConfig(
        out=str(run),
        model=ModelConfig(name=MODEL),
        data=DataConfig(source=source, val_fraction=0.5),
        steps=steps,
        eval_every=2,
    )
    config = replace(config, **changes)
    images = divide(open_source(config.data), config.data, None)
    spec = fmjax.get_spec(MODEL)
    records.write_run(run, config, images.split, spec, preprocess_config(spec))
    rows = []
    for step in range(1, at + 1):
        speed = {"images_per_s": 100.0, "data_wait": 0.2}
        rows.append({"step": step, "loss": 2.0 / step, "accuracy": 0.5, "lr": 1e-3, **speed})
        if step % 2 == 0:
            rows.append({"step": step, "val_accuracy": step / 10, "val_loss": 2.0 / step})
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return config, images


def predicted(run: Path, images: Images, step: int, rows: dict[str, np.ndarray]) -> str:
    """Keeps the predictions of a step."""
    index = np.arange(len(next(iter(rows.values()))))
    scores = Scores({"accuracy": 0.5}, {"index": index, **rows}, 0)
    return predictions.keep(run, step, scores, images.split.val.names)
