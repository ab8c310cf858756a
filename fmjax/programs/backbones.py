"""`fmjax report --backbones`: what several frozen backbones know of the same images, on one page."""

from __future__ import annotations

import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from fmjax import names
from fmjax.config.backbones import BackbonesConfig
from fmjax.config.features import ProbeConfig
from fmjax.config.model import ModelConfig
from fmjax.console import console
from fmjax.data.example import Examples, Splits
from fmjax.data.split import part_of
from fmjax.engine.placement import on_mesh
from fmjax.errors import DataError, FmjaxError, UsageError, in_bytes, sentence
from fmjax.models.flops import flops
from fmjax.programs import catalogue
from fmjax.programs.features import (
    Embeddings,
    Network,
    check_classes,
    extract,
    network,
    opened,
    regression,
)
from fmjax.programs.report_images import Gallery
from fmjax.programs.report_pictures import patch_pictures, spread
from fmjax.report.comparison import Comparison, Row, best, write_comparison
from fmjax.report.pages import made
from fmjax.specs import ViTSpec
from fmjax.targets import check_target
from fmjax.tasks.embed import neighbours_accuracy

TIMED = 5  # passes over one batch, after the first
PUBLISHED = "published"  # in the place of a checkpoint
# what ends one backbone's row and not the others'
TOLD = (FmjaxError, ValueError, OSError)


def main(config: BackbonesConfig) -> Path:
    """Writes the page and returns its path.

    What cannot be had of one backbone is said on the page. Raises UsageError for fewer than two backbones or an unknown
    one, before any is loaded, and DataError where none could be compared.
    """
    # hours of work earlier than the last of them is reached
    _check(config)
    path = check_target(config.out, ".html", flag="--out", force=config.force)
    splits = opened(_asked(config, 0))
    if config.k >= len(splits.train):
        raise UsageError(f"--k {config.k} neighbours of {len(splits.train)} images; take fewer")
    rows = []
    for place, name in enumerate(config.backbones):
        console.print(f"backbone  {name}")
        rows.append(_row(_asked(config, place), splits, config))
    if all(row.neighbours is None for row in rows):
        raise DataError(f"none of {len(rows)} backbones could be compared: {rows[0].note}")
    write_comparison(path, _page(config, splits, tuple(rows)))
    console.print(f"report    {path} ({in_bytes(path.stat().st_size)})")
    for row in rows:
        if row.note:
            console.print(f"note      {row.name}: {row.note}")
    return path


def _check(config: BackbonesConfig) -> None:
    if len(config.backbones) < 2:
        raise UsageError(
            f"--backbones has {len(config.backbones)} models; name two or more to compare, as in --backbones "
            f"dinov2_vits14 ViT-B-16.openai"
        )
    for name in config.backbones:
        names.get_spec(name)
    twice = sorted({name for name in config.backbones if config.backbones.count(name) > 1})
    if twice and not config.checkpoints:
        raise UsageError(f"--backbones names {twice[0]!r} twice; name it once")


def _asked(config: BackbonesConfig, place: int) -> ProbeConfig:
    """The probe of one of the backbones."""
    given = config.checkpoints[place] if config.checkpoints else PUBLISHED
    checkpoint = "" if given == PUBLISHED else given
    return ProbeConfig(
        model=ModelConfig(name=config.backbones[place], checkpoint=checkpoint),
        data=config.data,
        batch_size=config.batch_size,
        c=config.c,
        folds=config.folds,
        seed=config.seed,
    )


def _row(asked: ProbeConfig, splits: Splits, config: BackbonesConfig) -> Row:
    """One backbone in numbers and pictures; what could not be had is said in its note."""
    facts = catalogue.record(asked.model.name)
    spec = names.get_spec(asked.model.name)
    row = Row(
        name=asked.model.name,
        parameters=spec.parameters,
        width=spec.embed_dim or spec.width,
        **_sized(spec),
        licence=facts["licence"],
    )
    # weights that are not there are one backbone's trouble
    try:
        found = network(asked)
        compiled, speed = _timed(found, splits.train, asked)
        # the same program embeds the images: it is compiled once
        found = replace(found, outputs=compiled)
        row = replace(row, **_sized(found.model.spec), **speed)
        row = replace(row, **_scores(found, splits, asked, config))
        return replace(row, maps=_maps(found, splits, config))
    except TOLD as error:
        return replace(row, note=sentence(error))


def _sized(spec: ViTSpec) -> dict[str, Any]:
    """What an image costs, at the size of the spec's images."""
    return {
        "gflops": flops(spec).forward / 1e9,
        "size": " x ".join(map(str, spec.image_size)),
    }


def _timed(found: Network, examples: Examples, asked: ProbeConfig) -> tuple[Any, dict[str, Any]]:
    """The compiled program; images a second of the network alone, and the bytes that a device holds, for one batch of
    the images."""
    reading, size = found.read(examples, asked)
    batch = on_mesh(next(reading), found.mesh, size)
    run: Any = found.outputs
    # compiled by hand, as what it says of memory is wanted too
    compiled = run.lower(found.params, batch).compile()
    jax.block_until_ready(compiled(found.params, batch))
    seconds = []
    for _ in range(TIMED):
        start = time.perf_counter()
        jax.block_until_ready(compiled(found.params, batch))
        seconds.append(time.perf_counter() - start)
    speed = {"per_second": size / statistics.median(seconds), "memory": _memory(compiled)}
    return compiled, speed


def _memory(compiled: Any) -> int | None:
    """What the compiler has laid out: arguments, results and work space, without what two of them share."""
    known = compiled.memory_analysis()
    # not every backend says it
    if known is None:
        return None
    held = known.argument_size_in_bytes + known.output_size_in_bytes + known.temp_size_in_bytes
    return held - known.alias_size_in_bytes


def _scores(
    found: Network, splits: Splits, asked: ProbeConfig, config: BackbonesConfig
) -> dict[str, Any]:
    parts = extract(asked, [part for part in (splits.train, splits.val) if part is not None], found)
    train, val = parts[0], parts[-1]
    others = None if len(parts) == 1 else val.features
    vote = neighbours_accuracy(train.features, train.labels, others, val.labels, k=config.k)
    return {"neighbours": vote, **_probe(parts, asked)}


def _probe(parts: list[Embeddings], asked: ProbeConfig) -> dict[str, Any]:
    # a class of too few images for the folds leaves the vote as it is
    try:
        check_classes(asked, parts[0], alone=len(parts) == 1)
    except DataError as error:
        return {"note": f"no linear probe: {sentence(error)}"}
    return {"probe": regression(asked, parts)[0]}


def _maps(found: Network, splits: Splits, config: BackbonesConfig) -> tuple[Any, ...]:
    """What the network sees in some of the held-out images, the same for all backbones."""
    if not config.maps:
        return ()
    examples = splits.val or splits.train
    places = spread(range(len(examples)), config.maps)
    # below the folder, as everywhere: a page is shown to others
    shown = part_of(examples.subset(np.asarray(places)), config.data.source).names
    where = dict(zip(shown, places, strict=True))
    gallery = Gallery(examples, where, config.data.max_pixels)
    labels = {name: examples.classes[examples.labels[place]] for name, place in where.items()}
    images = found.learner.images
    return patch_pictures(found.model, images, gallery, list(where), labels).get("maps", ())


def _page(config: BackbonesConfig, splits: Splits, rows: tuple[Row, ...]) -> Comparison:
    train, val = splits.train, splits.val
    # what a score came about by stands beside it
    how = "each image against all others" if val is None else "train to val"
    folds = f"over {config.folds} folds" if val is None else "train to val"
    count = len(train) + (len(val) if val else 0)
    size = config.batch_size
    devices = f"{jax.device_count()} x {jax.devices()[0].device_kind}"
    return Comparison(
        title=Path(config.data.source.partition(":")[2] or config.data.source).name,
        lead=f"{len(rows)} frozen backbones on {count:,} images of {len(train.classes):,} classes.",
        made=made(),
        rows=rows,
        best=best(rows),
        neighbours_say=f"Neighbours: the vote of the {config.k} nearest by cosine, {how}.",
        probe_say=f"Linear probe: a logistic regression on standardised embeddings, {folds}.",
        speed_say=f"Images/s are of the network alone, in batches of {size} on {devices}.",
    )
