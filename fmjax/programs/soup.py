"""Greedy soups of runs (arXiv:2203.05482): which of them an average is made of, by their scores."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh

from fmjax.console import console
from fmjax.engine.evaluate import evaluate
from fmjax.engine.records import split_of
from fmjax.engine.run import outline
from fmjax.engine.step import compiled_outputs
from fmjax.errors import UsageError
from fmjax.programs.evaluate import scored
from fmjax.programs.members import Member, averaged, whole
from fmjax.trees import Params


@dataclass(frozen=True)
class Soup:
    """The members that were taken in, best first, what each run scores alone, and what their mean scores."""

    members: list[Member]
    alone: dict[str, float]
    score: float


def greedy(runs: Sequence[Member], mesh: Mesh, *, batch_size: int) -> Soup:
    """The best run, and of the others, best first, each with which the mean scores no worse than without it (recipe 1).

    Scores are of the images that the runs held out. Raises UsageError where these are not the same for all.
    """
    _check_same_images(runs)
    task, score = runs[0].learner.task, _scorer(runs[0], mesh, batch_size)
    alone: dict[str, float] = {}
    for run in runs:
        alone[run.name] = score(run.read())
        console.print(f"alone   {task.words({task.watch: alone[run.name]})}: {run.name}")
    # of equals the one that was named first: sorting keeps their order
    sign = 1 if task.highest else -1
    best, *others = sorted(runs, key=lambda run: -sign * alone[run.name])
    members, reached = [best], alone[best.name]
    for run in others:
        tried = [*members, run]
        value = score(averaged(tried, [1 / len(tried)] * len(tried)))
        if sign * value >= sign * reached:
            members, reached = tried, value
    return Soup(members, alone, reached)


def other_images(members: Sequence[Member]) -> list[str]:
    """What is to be said of an average whose runs held out other images than the first of them; it has that one's."""
    runs = [member for member in members if member.step]
    return [
        f"note    {name} has other held-out images than {runs[0].name}, and was trained on some of those that "
        f"`fmjax eval` scores the average by: name others with --source"
        for name in _with_other_images(runs)
    ]


def _with_other_images(runs: Sequence[Member]) -> list[str]:
    """The names of runs that held out other images than the first."""
    splits = {run.name: split_of(Path(run.name), run.labels) for run in runs}
    # a run of an older version has no record, so that nobody knows
    digests = {name: split and split.digest for name, split in splits.items()}
    first = digests[runs[0].name]
    return [name for name, digest in digests.items() if digest is None or digest != first]


def _check_same_images(runs: Sequence[Member]) -> None:
    """Raises UsageError where greed would choose by images that a run was trained on, or by nothing."""
    for run in runs:
        if not run.step:
            raise UsageError(
                f"--greedy chooses among runs, and {run.name} has no score; leave it out, or pass --weights"
            )
    odd = _with_other_images(runs)
    if odd:
        raise UsageError(
            f"{odd[0]} has other held-out images than {runs[0].name}, so that they cannot be compared with "
            f"--greedy; train with the same --data.source and --data.split-seed, or leave --greedy out"
        )


def _scorer(first: Member, mesh: Mesh, batch_size: int) -> Callable[[Params], float]:
    """The watched score of parameters on the images that the runs held out, which are looked up once."""
    folder, data = Path(first.name), first.config.data
    images, told = scored(folder, data, data, first.labels)
    for line in told:
        console.print(line)
    learner = outline(folder, whole(first.config), first.labels, mesh)
    # one compiled function for all: they differ in their numbers only
    scores: Callable[[Params], Any] = partial(
        evaluate,
        learner,
        compiled_outputs(learner, mesh),
        examples=images,
        mesh=mesh,
        data=data,
        batch_size=batch_size,
        tell=console.print,
    )
    return lambda params: scores(params)[learner.task.watch]
