"""`fmjax eval`: a run on the validation part of its data, or on other data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from fmjax.config.data import DataConfig
from fmjax.config.presets import load_preset
from fmjax.config.run import EvalConfig
from fmjax.console import console
from fmjax.data import audit
from fmjax.data.commits import as_recorded
from fmjax.data.example import Examples, check_fields
from fmjax.data.sources import open_source
from fmjax.data.split import (
    UNRECORDED,
    Split,
    examples,
    held_out,
    is_recorded,
    joined,
    part_of,
    relabelled,
    trained_on,
)
from fmjax.engine import agreement, hosts, predictions
from fmjax.engine.evaluate import Scores, evaluate
from fmjax.engine.placement import mesh_of
from fmjax.engine.plan import Learner
from fmjax.engine.records import read_run, same_source, split_of
from fmjax.engine.run import chosen_step, outline, restore_params
from fmjax.engine.step import compiled_outputs
from fmjax.errors import DataError, amount


def main(run: str, config: EvalConfig) -> Scores:
    """Prints what is scored, and the scores of a run, and returns them."""
    with hosts.joined(config.hosts):
        return _scores(run, config)


def _scores(run: str, config: EvalConfig) -> Scores:
    folder = Path(run)
    # the code of a task of one's own comes from the user, and never from a run's folder
    own = load_preset(config.preset).task if config.preset else None
    trained, classes = read_run(folder, own)
    mesh = mesh_of(config.mesh, console.print)
    # a dataset of the hub that is named again is the one that was trained on, whatever it has become
    source = as_recorded(config.source, trained.data.source) or trained.data.source
    streams = trained.data.stream and source == trained.data.source
    data = replace(trained.data, source=source, stream=streams)
    chosen, told = scored(folder, data, trained.data, classes)
    for line in told:
        console.print(line)
    # before any array is read: whether the data have what the task needs
    # hosts that score other images would wait for each other's batches forever
    agreement.check(config, the_images=agreement.images_digest(chosen))
    learner = outline(folder, trained, classes, mesh)
    check_fields(chosen, learner.task.needs, source=data.source)
    step = chosen_step(folder, trained, learner.task, None if config.step < 0 else config.step)
    average = trained.recipe.averages
    console.print(f"step    {step}{', the average of its parameters' if average else ''}")
    params = restore_params(folder, learner.net, step, mesh, average=average)
    outputs = compiled_outputs(learner, mesh)
    scores = evaluate(
        learner,
        outputs,
        params,
        chosen,
        mesh,
        data=data,
        batch_size=config.batch_size,
        tell=console.print,
    )
    console.print(summary(learner, scores))
    split = split_of(folder, classes)
    # of the step that the run hands out, on its own images: what `fmjax report` shows
    if config.step < 0 and split and part_of(chosen, data.source).names == split.val.names:
        failed = hosts.by_first(lambda: predictions.keep(folder, step, scores, split.val.names))
        if failed:
            console.print(f"note    {failed}")
    return scores


def summary(learner: Learner, scores: Scores) -> str:
    """The scores of a set on a line."""
    words = learner.task.summary(scores.numbers, scores.rows, learner.labels)
    left_out = (
        f", {amount(scores.unreadable, 'unreadable one')} left out" if scores.unreadable else ""
    )
    return f"val     {words} ({amount(len(scores), 'image')}{left_out})"


def scored(
    run: Path, data: DataConfig, trained: DataConfig, classes: tuple[str, ...]
) -> tuple[Examples, list[str]]:
    """What `fmjax eval` scores, and the lines that say so: the images that the run held out, or those of another
    source."""
    split, own = split_of(run, classes), same_source(data, trained)
    # the run's own data must be what they were; other data may have fewer classes, but no others
    splits = open_source(data, None if own else classes)
    said = audit.lines(splits, splits.train, splits.val)
    # a run of an older version, with no record: its part is drawn again, by the same seed
    if split is None and own:
        val = known(splits.both(data.val_fraction, data.split_seed)[1], data, classes)
        return val, [
            *said,
            f"note    {UNRECORDED}",
            f"scored  {data.source}, a held-out part: {amount(len(val), 'image')}",
        ]
    # with a record the parts of a source do not matter: images are looked up by their names
    everything = relabelled(joined(splits), classes)
    if split is not None and (own or is_recorded(everything, data, split)):
        source, told = own_images(everything, data, split)
        return source, said + told
    source = known(splits.train if splits.val is None else splits.val, data, classes)
    part = "all of it" if splits.val is None else "its held-out part"
    of = len(np.unique(source.labels))
    count = f"{amount(len(source), 'image')} of {amount(of, 'class', 'classes')}"
    told = [f"scored  {data.source}, {part}: {count}"]
    # images that were trained on are no test, wherever they lie now
    seen = [] if split is None else trained_on(source, data.source, split)
    if seen:
        known_ones = (
            f"{len(seen):,} of them have the name and size of images that the run was trained on"
        )
        told.append(f"note    {known_ones} ({examples(seen)})")
    return source, said + told


def own_images(everything: Examples, data: DataConfig, split: Split) -> tuple[Examples, list[str]]:
    """The images that a run held out, and how the data have changed since."""
    source, changes = held_out(everything, data, split)
    told = [f"scored  {data.source}, the images that the run held out: {len(source):,}"]
    # images that came later are left out, and a person should know of them before reading a score
    if str(changes):
        told.insert(0, f"note    {data.source} has changed since the run was made: {changes}")
    return source, told


def known(source: Examples, data: DataConfig, classes: tuple[str, ...]) -> Examples:
    """The images with the labels of a run. Raises DataError, by name, for classes that it does not know."""
    out = relabelled(source, classes)
    # -1 stands for a class that the run has no output for
    unknown = [source.classes[i] for i in np.unique(source.labels[out.labels < 0])]
    if unknown:
        raise DataError(
            f"{data.source} has {len(unknown)} classes that the run was not trained on: "
            f"{examples(unknown)}; it knows {examples(classes)}; rename the folders, or leave them out"
        )
    return out
