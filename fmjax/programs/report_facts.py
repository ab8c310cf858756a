"""What a run's records say of its data, its files and its settings, for its report."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fmjax import names
from fmjax.config.run import RunConfig
from fmjax.data.split import Split
from fmjax.engine import manifest, steps
from fmjax.engine.predictions import PREDICTIONS, Predictions
from fmjax.engine.records import CONFIG, config_record, export_path
from fmjax.engine.run import chosen_step
from fmjax.errors import CheckpointError, UsageError, amount, in_bytes
from fmjax.programs.report_images import Gallery
from fmjax.specs import Source, Weights
from fmjax.tasks.task import Task

PIECE = 2**24  # bytes that are read at a time
CLASS_ROWS = 1_000


def data_facts(
    config: RunConfig, classes: tuple[str, ...], split: Split | None, gallery: Gallery, task: Task
) -> dict[str, Any]:
    """What the run was trained and scored on."""
    facts = [("source", config.data.source)]
    if split is None:
        return {"data": tuple(facts)}
    facts.append(("to learn from", amount(len(split.train), "image")))
    facts.append(("held out", f"{amount(len(split.val), 'image')}, which no step has learned from"))
    sizes: tuple[tuple[str, int, int], ...] = ()
    # of an image of several classes the record has a checksum, and of masks no class at all
    if "label" in task.needs:
        train, val = (_sizes(part.labels, len(classes)) for part in (split.train, split.val))
        spread = f"{train.min():,} to {train.max():,} images, the median {np.median(train):,.0f}"
        facts.append(("a class has, to learn from", spread))
        order = np.argsort(train, kind="stable")[:CLASS_ROWS].tolist()
        sizes = tuple((classes[i], int(train[i]), int(val[i])) for i in order)
    facts += [("found in the data", line) for line in gallery.audit]
    facts.append(("digest of both lists", split.digest))
    return {"data": tuple(facts), "class_sizes": sizes}


def _sizes(labels: np.ndarray, classes: int) -> np.ndarray:
    # a record is read like a file from a stranger: other numbers are no class
    known = labels[(labels >= 0) & (labels < classes)]
    return np.bincount(known, minlength=classes)


def run_parts(
    folder: Path, config: RunConfig, task: Task, predictions: Predictions | None
) -> dict[str, Any]:
    """Model, weights, files with their digests, settings and where it ran."""
    # what a reader looks for is what was asked for; all of it is there beneath
    record = config_record(config)
    usual = dict(_flat(config_record(RunConfig())))
    changed = [(key, value) for key, value in _flat(record) if usual.get(key) != value]
    facts = [("model", config.model.name), *_weights(config), *_files(folder, config, task)]
    # what a reader asks first stands before what tells files apart, and the whole of the settings comes last
    found = {} if predictions is None else predictions.about.environment
    return {
        "run": tuple(facts),
        "digests": tuple(_digests(folder, config, task)),
        "settings": json.dumps(record, indent=2, ensure_ascii=False),
        "changed": tuple(changed),
        "environment": tuple((name, str(value)) for name, value in found.items()),
    }


def _weights(config: RunConfig) -> Iterator[tuple[str, str]]:
    """Where the weights are from, and what may be done with them."""
    if config.model.init == "random":
        yield "weights", "random ones"
        return
    # a row of a preset of one's own, which is not here now
    row = _row(config)
    if row is None:
        yield "weights", "of a row that is not known here"
        return
    yield "licence of the weights", row.licence
    if config.model.checkpoint:
        yield "weights", config.model.checkpoint
        return
    for source in row.sources[:1]:
        yield "weights", _place(source)


def _row(config: RunConfig) -> Weights | None:
    try:
        return names.get_weights(config.model.name)
    except UsageError:
        return None


def _place(source: Source) -> str:
    # a file of this package, or an address, names itself
    if source.location.endswith(source.filename):
        return source.location
    return f"{source.location} {source.filename}"


def _handed_out(folder: Path, config: RunConfig, task: Task) -> int | None:
    """The step of the checkpoint that the run hands out; None where it has none."""
    try:
        return chosen_step(folder, config, task, None)
    except CheckpointError:
        return None


def _files(folder: Path, config: RunConfig, task: Task) -> Iterator[tuple[str, str]]:
    step = _handed_out(folder, config, task)
    yield "checkpoint that is handed out", "none yet" if step is None else f"step {step:,}"
    path = export_path(folder, config)
    if path.is_file():
        yield "exported file", f"{path.name}, {in_bytes(path.stat().st_size)}"


def _digests(folder: Path, config: RunConfig, task: Task) -> Iterator[tuple[str, str]]:
    """What tells the files of the run from others: SHA-256, and of a checkpoint that of the list of its files."""
    # a run from random weights has nothing of the published file
    row, step = _row(config), _handed_out(folder, config, task)
    published = [] if row is None or config.model.init == "random" else row.sources[:1]
    yield from (("published weights", source.sha256) for source in published if source.sha256)
    for path in (folder / CONFIG, folder / PREDICTIONS, export_path(folder, config)):
        if path.is_file():
            yield path.name, _sha256(path)
    listed = steps.folder(folder, step or 0) / manifest.MANIFEST
    if listed.is_file():
        yield f"files of step {step:,}", _sha256(listed)


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def _flat(values: Mapping[str, Any], head: str = "") -> Iterator[tuple[str, str]]:
    """Settings by the names of their flags."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{head}{name}.")
        else:
            shown = value if isinstance(value, str) else json.dumps(value)
            yield f"{head}{name}", shown
