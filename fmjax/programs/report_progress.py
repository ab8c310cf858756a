"""How a run went, for its report: out of the rows of its metrics.jsonl, however far it has come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fmjax.config.run import RunConfig
from fmjax.engine import steps
from fmjax.engine.metrics import Row
from fmjax.report.charts import Chart, Points, line_chart
from fmjax.report.pages import Facts
from fmjax.tasks.task import Task

VAL = "val_"  # before the name of a score of held-out images
SPOKEN = {"miou": "mean IoU", "grad_norm": "norm of the gradient", "lr": "learning rate"}
SPOKEN |= {"macro_f1": "macro F1", "top5": "top-5 accuracy", "images_per_s": "images a second"}
SPOKEN |= {"data_wait": "waiting for data", "mfu": "model FLOPs utilisation"}
FEW_SECONDS, MANY_SECONDS = 90, 5_400  # below which a time is told in seconds, and above in hours
LONG_WAIT = 0.1  # of the time, which more workers could give back


@dataclass(frozen=True)
class Progress:
    """How far a run has come. best: its best step, the newest scored one where it keeps none; None: not scored."""

    config: RunConfig
    rows: Sequence[Row]
    watch: str
    best: int | None

    @classmethod
    def of(cls, config: RunConfig, rows: Sequence[Row], task: Task) -> Progress:
        best = steps.best(rows, task.watch, highest=task.highest)
        found = cls(config, rows, task.watch, best)
        if not config.keep_best and found.scored:
            return cls(config, rows, task.watch, found.scored[-1])
        return found

    @property
    def scored(self) -> list[int]:
        """The steps that have scores."""
        return [int(step) for step, _ in self.points(f"{VAL}{self.watch}")]

    @property
    def last(self) -> int:
        return max((row["step"] for row in self.rows), default=0)

    @property
    def notes(self) -> list[str]:
        """What a reader must know before anything else: that there is more to come."""
        # a run that was killed has no other mark than where its log ends
        last, steps = self.last, self.config.steps
        if last < steps:
            at = f"it is at step {last:,} of {steps:,}"
            return [f"the run is not finished: {at}; this is what there is so far"]
        return [] if steps in self.scored else ["the run was ended before its last score"]

    def points(self, name: str) -> Points:
        """(step, number) of all rows that have it."""
        return [(float(row["step"]), float(row[name])) for row in self.rows if name in row]

    def at(self, name: str, step: int | None) -> float | None:
        """The newest number of a step; None where it has none."""
        found = [value for at, value in self.points(name) if at == step]
        return found[-1] if found else None

    def middle(self, name: str) -> float:
        """The median of all numbers of a name."""
        return float(np.median([value for _, value in self.points(name)] or [0.0]))

    def seconds(self) -> float:
        """Of training alone, out of the speeds of the log."""
        # a row's speed is that of the steps since the last row with one; compiling, scoring and saving are in none
        total, before = 0.0, 0.0
        for step, speed in self.points("images_per_s"):
            if speed > 0:
                total += max(step - before, 0) * self.config.batch_size / speed
            before = step
        return total


def progress_parts(progress: Progress, task: Task) -> dict[str, Any]:
    """The headline, the curves and the speed."""
    parts: dict[str, Any] = {"figures": _figures(progress, task)}
    parts["scored"] = progress.best is not None
    return parts | _curves(progress, task) | _scores(progress, task) | _speed(progress)


def _figures(progress: Progress, task: Task) -> Facts:
    config, best = progress.config, progress.best
    score = progress.at(f"{VAL}{task.watch}", best)
    # a run that was not scored yet has no better headline than how far it is
    found = [("steps", f"{progress.last:,} of {config.steps:,}")]
    if best is not None and score is not None:
        name = f"{_spoken(task.watch)} of held-out images"
        found = [(name, _value(task, task.watch, score))]
        found.append(("best step", f"{best:,} of {config.steps:,}"))
    seconds = progress.seconds()
    if seconds:
        found.append(("of training", _duration(seconds)))
        found.append(("images a second", f"{progress.middle('images_per_s'):,.0f}"))
    found.append(("images in a step", f"{config.batch_size:,}"))
    return tuple(found)


def _spoken(name: str) -> str:
    return SPOKEN.get(name, name.replace("_", " "))


def _value(task: Task, name: str, value: float) -> str:
    return f"{value:.1%}" if name in task.shares else f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < FEW_SECONDS:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < MANY_SECONDS else f"{seconds / 3600:.1f} h"


def _curves(progress: Progress, task: Task) -> dict[str, Any]:
    # one chart where the score that is watched is the loss
    names = dict.fromkeys(("loss", task.watch, "lr", "grad_norm"))
    charts = [_curve(progress, task, name) for name in names]
    step, steps = progress.last, progress.config.steps
    says = f"{step:,} of {steps:,} steps of {progress.config.batch_size:,} images."
    return {"curves": _there(charts), "curves_say": says}


def _there(charts: Sequence[Chart | None]) -> tuple[Chart, ...]:
    return tuple(chart for chart in charts if chart is not None)


def _curve(progress: Progress, task: Task, name: str) -> Chart | None:
    best = progress.at(f"{VAL}{name}", progress.best)
    mark = None
    # of the score that runs are compared by: another may be at its best elsewhere
    if name == task.watch and best is not None and progress.best is not None:
        mark = (float(progress.best), best)
    series = [
        ("training", "train", progress.points(name)),
        ("held out", "val", progress.points(f"{VAL}{name}")),
    ]
    share = name in task.shares
    return line_chart(_spoken(name), series, x_label="step", share=share, best=mark)


def _scores(progress: Progress, task: Task) -> dict[str, Any]:
    """All scores, of the best step and of the last one that was scored."""
    if progress.best is None:
        return {}
    # one column where the last step is the best
    steps = list(dict.fromkeys([progress.best, progress.scored[-1]]))
    titles = {progress.best: f"best, step {progress.best:,}"}
    heads = tuple(titles.get(step, f"last, step {step:,}") for step in steps)
    # in the order in which the task gives them
    keys = dict.fromkeys(key for row in progress.rows for key in row if key.startswith(VAL))
    table = []
    for key in keys:
        name = key.removeprefix(VAL)
        values = [progress.at(key, step) for step in steps]
        table.append((_spoken(name), tuple(_cell(task, name, value) for value in values)))
    return {"score_steps": heads, "scores": tuple(table)}


def _cell(task: Task, name: str, value: float | None) -> str:
    return "" if value is None else _value(task, name, value)


def _speed(progress: Progress) -> dict[str, Any]:
    charts = []
    for name, share in (("images_per_s", False), ("data_wait", True), ("mfu", True)):
        series = [(_spoken(name), "val", progress.points(name))]
        charts.append(line_chart(_spoken(name), series, x_label="step", share=share))
    if not _there(charts):
        return {}
    # medians, as a checkpoint or a busy machine slows a few rows down by much
    wait, speed = progress.middle("data_wait"), progress.middle("images_per_s")
    advice = "; more --data.workers, or a packed set, would help" if wait > LONG_WAIT else ""
    # of devices whose peak is not known, as of a CPU, no share is known
    mfu = f"{progress.middle('mfu'):.1%}" if progress.points("mfu") else "n/a"
    says = (
        f"In the middle {speed:,.0f} images a second, {wait:.1%} of the time waiting for data{advice}; "
        f"MFU, the share of the devices' peak, {mfu}. Compiling, scoring and saving are left out."
    )
    return {"speed": _there(charts), "speed_say": says}
