"""How long a model's own weights take to load, and why they may not be here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from fmjax import names
from fmjax.bench.rows import Row
from fmjax.bench.subject import Subject
from fmjax.bench.timing import several
from fmjax.config.model import ModelConfig
from fmjax.engine.backbone import build_model
from fmjax.errors import CheckpointError, in_bytes
from fmjax.store.locate import locate
from fmjax.weights.load import read
from weights_conversion.readers import open_checkpoint


def lacking(model: ModelConfig) -> str:
    """Why there are no weights to load; "" where they are here, fetched if need be. Asks no device.

    Raises CheckpointError for a file that is named and cannot be read.
    """
    if model.init == "random":
        return "--model.init random has none"
    if model.checkpoint:
        open_checkpoint(model.checkpoint)
        return ""
    # the speed of a backbone does not depend on its weights: all but their own row can be had without them
    try:
        locate(names.get_weights(model.name), offline=model.offline)
    except CheckpointError as error:
        return str(error)
    return ""


def weights(asked: Subject) -> Iterator[Row]:
    """A file to parameters on the device, every tensor of it accounted for."""
    # opened once before the clock runs: the figure is of a file that is here, and not of a network
    model = asked.config.model
    found = read(
        model.name,
        checkpoint=model.checkpoint or None,
        dialect=model.dialect or None,
        offline=model.offline,
    )
    size = _bytes(found.path)

    def load() -> None:
        jax.block_until_ready(jax.tree.leaves(build_model(model, asked.images.image_size)))

    facts: dict[str, Any] = {"file": found.path.name, "bytes": size, "dialect": found.dialect.name}
    yield Row(
        kind="weights",
        what=f"{in_bytes(size)}, {found.dialect.name}",
        timing=several(load, seconds=asked.config.seconds),
        facts=facts,
    )


def _bytes(path: Path) -> int:
    """Of a file, or of all files of a folder."""
    files = path.rglob("*") if path.is_dir() else (path,)
    return sum(file.stat().st_size for file in files if file.is_file())
