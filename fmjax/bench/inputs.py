"""How fast pictures become batches: decoded and changed as training has them, and as evaluation has them."""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from fmjax.bench.rows import Row
from fmjax.bench.subject import Subject
from fmjax.bench.timing import timed
from fmjax.config.data import DataConfig
from fmjax.data.batches import eval_batches, train_batches
from fmjax.data.example import Examples
from fmjax.data.sources import open_source
from fmjax.engine.plan import make_task
from fmjax.tasks.task import Task

WIDTH, HEIGHT = 500, 375  # pixels, as most of ImageNet's pictures have
QUALITY = 90
DIFFERENT = 16  # pictures that are made
# files of them, which is a step: of several batches, as a batch may have been made ahead before it was asked for
LEAST, BATCHES = 128, 4
CLASSES = ("first", "second")
OCTAVES = (4, 8, 16, 32, 64, 128, 256)  # pixels across a picture, of the noise that it is a sum of
CONTRAST = 20.0  # deviation of each, of 255


def inputs(asked: Subject) -> Iterator[Row]:
    """JPEGs from a folder to batches of bytes, as a run reads them: its own threads, no accelerator."""
    size = asked.config.batch_size
    count = max(LEAST // size, BATCHES)
    with tempfile.TemporaryDirectory() as place:
        write_folder(Path(place), count * size)
        data = replace(asked.run.data, source=f"folder:{place}")
        examples, task = open_source(data).train, make_task(asked.run, asked.images)
        # the crops that training draws, then the pixels that evaluation has to have exactly
        for name, batches in WAYS.items():
            yield _row(asked, name, batches(examples, task, data, size), count)


def _row(asked: Subject, name: str, batches: Iterator[Any], count: int) -> Row:
    """One way of reading. count: batches of a step."""
    images, done = count * asked.config.batch_size, 0

    def run(steps: int) -> None:
        nonlocal done
        for _ in range(steps * count):
            next(batches)
        done += steps * images

    # of a core by processor time: the machine has other work, and hosts have more cores than one
    began = time.process_time()
    timing = timed(run, seconds=asked.config.seconds, least=1, looks=False)
    of_a_core = done / (time.process_time() - began)
    return Row(
        kind="input",
        what=f"{name}, {of_a_core:,.0f}/s a core",
        timing=timing,
        images=images,
        facts={"images_per_core_s": of_a_core, "picture": (HEIGHT, WIDTH), "view": name},
    )


def _train(examples: Examples, task: Task, data: DataConfig, size: int) -> Iterator[Any]:
    return iter(train_batches(examples, task.viewer, data, batch_size=size, seed=0))


def _evaluation(examples: Examples, task: Task, data: DataConfig, size: int) -> Iterator[Any]:
    """The batches of one evaluation after the other."""
    while True:
        yield from eval_batches(examples, task.viewer, data, batch_size=size)


WAYS: dict[str, Callable[[Examples, Task, DataConfig, int], Iterator[Any]]] = {
    "training": _train,
    "evaluation": _evaluation,
}


def write_folder(folder: Path, count: int) -> None:
    """A folder of so many JPEGs in two classes."""
    files = [jpeg(seed) for seed in range(DIFFERENT)]
    for name in CLASSES:
        (folder / name).mkdir()
    for number in range(count):
        path = folder / CLASSES[number % len(CLASSES)] / f"{number:06}.jpg"
        path.write_bytes(files[number % DIFFERENT])


def jpeg(seed: int) -> bytes:
    """A picture of noise as a file, of about the bytes that a photograph has."""
    file = io.BytesIO()
    Image.fromarray(picture(seed)).save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def picture(seed: int) -> UInt8[np.ndarray, "H W 3"]:
    """Noise of all scales alike, as photographs have (Field 1987, doi:10.1364/JOSAA.4.002379): of the finest alone a
    file is far larger."""
    rng = np.random.default_rng(seed)
    total = np.full((HEIGHT, WIDTH, 3), 127.5, np.float32)
    for across in OCTAVES:
        coarse = rng.standard_normal((across, across, 3)) * CONTRAST
        # an image has no negative numbers: shifted there and back
        shown = Image.fromarray(np.clip(coarse + 127.5, 0, 255).astype(np.uint8))
        total += np.asarray(shown.resize((WIDTH, HEIGHT)), np.float32) - 127.5
    return np.clip(total, 0, 255).astype(np.uint8)
