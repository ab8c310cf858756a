"""`fmjax embed`: the embedding of every image of a set, in parts that a stopped command goes on from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.features import EmbedConfig
from fmjax.console import console
from fmjax.data.batches import Batch, eval_indices
from fmjax.data.example import Examples
from fmjax.engine import agreement, hosts
from fmjax.engine.evaluate import pieces
from fmjax.engine.placement import on_mesh
from fmjax.engine.unreadable import SharedBadImages
from fmjax.errors import DataError, amount
from fmjax.programs.embedded import Record, check_made, record_of
from fmjax.programs.embeddings import ENDINGS, Parts, images_record, model_record, write
from fmjax.programs.features import Network, counted_images, network, opened
from fmjax.targets import check_target
from fmjax.tasks.embed import Embed


def main(config: EmbedConfig) -> Path:
    """Writes features, names and, where there are any, labels and classes, and returns the file's path.

    Where the file is there, of the same images and network, nothing is done. Raises UsageError where it, or the parts
    of a stopped command, are of others.
    """
    with hosts.joined(config.hosts):
        return _embedded(config)


def _embedded(config: EmbedConfig) -> Path:
    path, made = _target(config)
    splits = opened(config, Embed.needs)
    both = {"train": splits.train, "val": splits.val}
    sets = {role: part for role, part in both.items() if part is not None}
    agreement.check(config, the_images=[agreement.images_digest(one) for one in sets.values()])
    found = network(config)
    # what the parts are of: all that changes a number, or the image that it belongs to
    record = {
        "model": model_record(config.model, found.model),
        "preprocessing": asdict(found.learner.images),
        "images": {role: images_record(part, config.data.source) for role, part in sets.items()},
    }
    if made is not None:
        check_made(config.out, made, record)
        console.print(
            f"note    {path} is whole, of these images and settings: nothing is left to do"
        )
        return path
    parts = Parts(path.with_name(f".{path.name}.parts"))
    for line in hosts.by_first(lambda: parts.begin(record, force=config.force)):
        console.print(line)
    for role, examples in sets.items():
        _fill(config, found, parts, role, examples)
    # all processes have all rows; one file is enough
    count, width = hosts.by_first(lambda: write(path, parts, sets, record))
    hosts.by_first(parts.remove)
    if not count:
        total = sum(map(len, sets.values()))
        raise DataError(f"none of {amount(total, 'image')} can be read")
    console.print(f"{amount(count, 'embedding')} of width {width} in {path}")
    return path


def _target(config: EmbedConfig) -> tuple[Path, Record | None]:
    """The file to write, and what it is of where an earlier command has finished it."""
    # an ending that is none of them is answered with all of them
    ending = Path(config.out).suffix
    known = ending if ending in ENDINGS else f"{', '.join(ENDINGS[:-1])} or {ENDINGS[-1]}"
    sources = (config.model.checkpoint,)
    path = Path(config.out).expanduser()
    made = None if config.force else hosts.by_first(lambda: record_of(path))
    # whether a finished one is of the same is known when the images and the network are
    force = config.force or made is not None
    path = check_target(config.out, known, flag="--out", sources=sources, force=force)
    return path, made


def _fill(config: EmbedConfig, found: Network, parts: Parts, role: str, examples: Examples) -> None:
    """The parts of a set that are not there yet."""
    start, unreadable = hosts.by_first(lambda: parts.done(role))
    # those that an earlier command has met count as well, and are not told again
    bad = SharedBadImages(examples, config.data.max_bad, config.data.max_bad_share)
    bad.set_state(unreadable)
    for rows, stop in _computed(config, found, examples, start, bad):
        hosts.by_first(partial(parts.add, role, start, stop, rows))
        start = stop


def _computed(
    config: EmbedConfig,
    found: Network,
    examples: Examples,
    start: int,
    bad: SharedBadImages,
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
    """The rows of the images from a place on, so many at a time, and the place behind them."""
    if start >= len(examples):
        return
    # read in one go to the end, so that the readers never wait between two parts
    left = examples.subset(np.arange(start, len(examples)))
    reading, size = found.read(left, config)
    indexed = zip(eval_indices(len(left), size), reading, strict=True)
    watched = counted_images(indexed, len(left))
    # a whole number of batches a part: where the next one begins is known without looking at its rows
    each = -(-config.part_images // size) * size
    stop = start
    for rows in pieces(
        lambda batch: found.outputs(found.params, on_mesh(batch, found.mesh, size)),
        (_moved(index, batch, start) for index, batch in watched),
        bad=bad,
        tell=console.print,
        images=each,
    ):
        stop = min(stop + each, len(examples))
        yield rows, stop


def _moved(index: np.ndarray, batch: Batch, start: int) -> tuple[np.ndarray, dict[str, Any]]:
    """A batch of what is left of a set, by the places in the whole of it; -1 stays padding."""
    # both say which images a batch has: one of all processes, one of what this one has read
    own = batch["index"]
    known = {"index": np.where(own < 0, own, own + start)}
    return np.where(index < 0, index, index + start), {**batch, **known}
