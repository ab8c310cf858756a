"""predictions.npz: the rows of a run's best evaluation with the names of their images, whole or not at all."""

from __future__ import annotations

import json
import platform
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fmjax import __version__
from fmjax.data.strings import Strings
from fmjax.engine.evaluate import Scores
from fmjax.errors import CheckpointError, UsageError, escaped, sentence
from fmjax.serial import from_dict
from weights_conversion.readers import open_checkpoint
from weights_conversion.writer import whole

PREDICTIONS = "predictions.npz"
FORMAT = 1
MAX_BYTES = 128 * 2**20  # of the rows that are kept
MAX_READ = 2 * MAX_BYTES  # of a file: the rows, and their names
ROW = "rows/"  # before the name of an array of the task's
AGAIN = "`fmjax eval RUN` makes it anew"


@dataclass(frozen=True, kw_only=True)
class About:
    """What the file says of itself. images: how many were scored; rows of all of them are kept where they fit."""

    format: int
    step: int
    images: int
    unreadable: int
    scores: dict
    environment: dict


@dataclass(frozen=True)
class Predictions:
    """The rows of an evaluation: arrays [N ...] as the task's `outputs` gives them, "index" (the place in the set that
    was scored) among them, and the names of their images [N]."""

    rows: Mapping[str, np.ndarray]
    names: Strings
    about: About

    def __len__(self) -> int:
        return len(self.names)


def keep(run: Path, step: int, scores: Scores, names: Sequence[str]) -> str:
    """Writes the rows of an evaluation into a run's folder. Returns a sentence where that could not be done, and ""
    where it was: a run does not end over it.

    names: of all images of the set, as the run's record has them.
    """
    # rows of different sets, or of more images than are remembered, would be more than a report can use
    chosen = _evenly(len(scores), _row_bytes(scores.rows))
    rows = {name: np.asarray(row)[chosen] for name, row in scores.rows.items()}
    kept = Strings.of(names[int(index)] for index in rows["index"])
    about = About(
        format=FORMAT,
        step=step,
        images=len(scores),
        unreadable=scores.unreadable,
        scores=dict(scores.numbers),
        environment=environment(),
    )
    text = np.frombuffer(json.dumps(asdict(about)).encode(), np.uint8)
    arrays = {f"{ROW}{name}": row for name, row in rows.items()}
    try:
        with whole(run / PREDICTIONS) as file:
            # stored as they are: numbers of a network hardly shrink
            np.savez(file, about=text, names=kept.blob, name_ends=kept.ends, **arrays)  # pyright: ignore[reportArgumentType]
    except OSError as error:
        return f"the predictions of step {step} are not kept: {escaped(sentence(error), 200)}"
    return ""


def _row_bytes(rows: Mapping[str, np.ndarray]) -> int:
    return sum(row.nbytes for row in rows.values()) // max(len(rows["index"]), 1)


def _evenly(count: int, row_bytes: int) -> np.ndarray:
    """The places of as many rows as may be kept, spread over all."""
    most = max(MAX_BYTES // max(row_bytes, 1), 1)
    # a set may be in the order of its classes: its first part would be of some of them alone
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def environment() -> dict[str, str]:
    """What computes here: versions and devices."""
    devices = jax.devices()
    # of fmjax what runs: what pip has noted of a checkout is that of the day of its installation
    others = {name: metadata.version(name) for name in ("jax", "flax", "numpy")}
    kinds = {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "devices": f"{len(devices)} x {devices[0].device_kind}",
    }
    return {"fmjax": __version__, **others, **kinds}


def read(run: Path) -> Predictions | None:
    """The predictions of a run; None where it has none. Raises CheckpointError where they are damaged."""
    path = run / PREDICTIONS
    if not path.is_file():
        return None
    try:
        # nothing of it is believed: lengths, kinds and checksums are looked at before a number is used
        if path.stat().st_size > MAX_READ:
            raise CheckpointError(f"it has more than {MAX_READ:,} bytes")
        found = open_checkpoint(path).tensors
        arrays = {name: np.array(tensor.read(())) for name, tensor in found.items()}
        about = from_dict(About, json.loads(arrays.pop("about").tobytes()))
        names = Strings(arrays.pop("names"), arrays.pop("name_ends"))
        if about.format != FORMAT:
            raise CheckpointError(f"it has the format {about.format}, and {FORMAT} is read")
        predictions = Predictions({_row_name(name): arrays[name] for name in arrays}, names, about)
        _check(predictions)
    except (CheckpointError, UsageError, OSError, ValueError, LookupError, RecursionError) as error:
        reason = escaped(sentence(error), 200)
        raise CheckpointError(f"{path} is damaged: {reason}; {AGAIN}") from error
    return predictions


def _row_name(name: str) -> str:
    if not name.startswith(ROW):
        raise CheckpointError(f"it has an array {reprlib.repr(name)}, which is no row of a task")
    return name.removeprefix(ROW)


def _check(predictions: Predictions) -> None:
    """Raises CheckpointError for arrays that do not belong together: they are looked up ever after, unchecked."""
    names, about = predictions.names, predictions.about
    # kinds first: a number of another kind may compare otherwise
    if names.blob.dtype != np.uint8 or names.ends.dtype != np.int64 or names.ends.ndim != 1:
        raise CheckpointError("its names are of another kind")
    steps = np.diff(names.ends, prepend=0)
    if not len(names) or names.ends[-1] != len(names.blob) or steps.min() < 0:
        raise CheckpointError("its names do not fit together")
    if len(predictions) > about.images or about.step < 0:
        raise CheckpointError(f"it has {len(predictions):,} rows of {about.images:,} images")
    for name, row in _with_index(predictions.rows).items():
        if row.shape[:1] != (len(predictions),):
            shape = tuple(row.shape)
            raise CheckpointError(f"it has {name!r} of {shape} for {len(predictions):,} images")
    scores: Any = about.scores.values()
    if not all(type(value) in (int, float) for value in scores):
        raise CheckpointError("its scores are no numbers")


def _with_index(rows: Mapping[str, np.ndarray]) -> Mapping[str, np.ndarray]:
    if "index" not in rows:
        raise CheckpointError("it has no index")
    return rows
