"""What a person sees of a run, and what metrics.jsonl keeps of it."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
from rich.text import Text

from fmjax.console import clock, console, in_place
from fmjax.engine.alarms import WINDOW, Alarms, Step
from fmjax.engine.evaluate import Scores
from fmjax.engine.metrics import Metrics
from fmjax.engine.plan import Plan
from fmjax.engine.profile import PROFILE, Profile
from fmjax.engine.unreadable import SharedBadImages

COLUMNS = 80  # letters of a line in a file or a notebook
GUARD = ("skipped", "skipped_in_row", "loss_scale")  # of the logs, for metrics.jsonl and no line


class Progress:
    """Step, a task's numbers, images/s, share of the time spent waiting for data, and time to go.

    Speed is that of training alone: the first step, which compiles, is left out by `begin`, evaluation and saving by
    `paused`. The time to go counts all but the first step.
    """

    def __init__(self, steps: int, batch_size: int, done: int) -> None:
        self.steps, self.batch_size = steps, batch_size
        self.begin(done)
        self.live = in_place()

    def __enter__(self) -> Progress:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.live:
            self.live.__exit__(kind, value, trace)

    def begin(self, step: int) -> None:
        """Measures from here, the end of a step."""
        self.start = self.last = time.monotonic()
        self.first_step = self.last_step = step
        self.waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Around waiting for data."""
        start = time.monotonic()
        yield
        self.waited += time.monotonic() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Around work that is not training."""
        start = time.monotonic()
        yield
        # the clock of the speed is put forward by it; that of the time to go runs on, as a person's does
        self.last += time.monotonic() - start

    def update(self, step: int, words: Sequence[str]) -> dict[str, float]:
        """Shows a line and returns what it says of speed: nothing where no step has been measured."""
        shown = [f"step {step}/{self.steps}", *words]
        if step == self.first_step:
            self.show(self.fitted(shown, list(words[:0:-1])))
            return {}
        # speed is that since the last line; the time to go is by all steps that were measured
        now = time.monotonic()
        elapsed = max(now - self.last, 1e-9)
        rate, wait = (
            (step - self.last_step) * self.batch_size / elapsed,
            min(self.waited / elapsed, 1.0),
        )
        left = (now - self.start) / (step - self.first_step) * (self.steps - step)
        self.last, self.last_step, self.waited = now, step, 0.0
        shown += [f"{rate:.0f} img/s", f"wait {wait:.0%}", f"ETA {clock(left)}"]
        # the step and its first number stay
        self.show(self.fitted(shown, [shown[-2], shown[-3], *words[:0:-1], shown[-1]]))
        return {"images_per_s": rate, "data_wait": wait}

    def fitted(self, parts: Sequence[str], least: Sequence[str]) -> str:
        """The parts on a line. least: those that are left out where it is too long, the least missed first."""
        # a terminal is asked each time, as its width may change; a file has room for all but the share of waiting
        if console.is_terminal:
            return fitting(parts, least, console.width)
        return fitting(parts, [part for part in least if part.startswith("wait ")], COLUMNS)

    def show(self, line: str) -> None:
        """Replaces the live line; elsewhere prints."""
        if self.live:
            # cut rather than folded: one line is written over, two are a page that jumps
            self.live.update(Text(line, overflow="ellipsis", no_wrap=True))
        else:
            console.print(line)

    def print(self, line: str) -> None:
        """A line that stays."""
        console.print(line)


def fitting(parts: Sequence[str], least: Sequence[str], width: int) -> str:
    """The parts on a line of so many letters, as far as those of `least` that are left out make it one."""
    kept = list(parts)
    for part in least:
        if len("  ".join(kept)) <= width:
            break
        kept.remove(part)
    return "  ".join(kept)


class Watch:
    """Around the steps of a run: keeps its metrics, names what cannot be read, and shows how far it is.

    ceiling: images a second at the devices' peak, of which the speed is a share; None where it is not known.
    """

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        bad: SharedBadImages,
        start: int,
        saved: Callable[[], Sequence[int]],
        ceiling: float | None = None,
    ) -> None:
        self.plan, self.metrics, self.bad, self.start = plan, metrics, bad, start
        self.progress = Progress(plan.steps, plan.batch_size, start)
        losses = [row["loss"] for row in metrics.rows() if "loss" in row]
        self.alarms = Alarms(plan.max_skipped, self.tell, saved, losses[-WINDOW:])
        self.owed = False  # whether a save was put off
        self.ceiling = ceiling
        traced = plan.profiled if metrics.writes else range(0)
        self.profile = Profile(metrics.path.parent / PROFILE, traced, self.tell)

    def __enter__(self) -> Watch:
        self.progress.__enter__()
        if self.start:
            self.tell(f"resumed from step {self.start}")
        if self.metrics.dropped:
            self.tell(f"note    {self.metrics.dropped}")
        return self

    def __exit__(self, *raised: Any) -> None:
        self.profile.close()
        self.progress.__exit__(*raised)

    def next(self, batches: Iterator[dict[str, Any]]) -> dict[str, Any]:
        """The next batch, the time that it is waited for counted, and its unreadable images named."""
        # around this alone: what the device does in the meantime is no waiting for data
        with self.progress.waiting():
            batch = next(batches)
        self.bad.name(batch, self.tell)
        self.indices = batch["index"]
        return batch

    def tell(self, line: str) -> None:
        """A line that stays."""
        self.progress.print(line)

    def paused(self) -> AbstractContextManager[None]:
        """Around work that is not training."""
        return self.progress.paused()

    def logs(self, step: int, logs: Mapping[str, Any]) -> None:
        """A row of metrics.jsonl and a line on the screen. Raises DivergedError where the numbers are none for too
        long."""
        self.profile.after(step, logs)
        if step == self.start + 1:
            jax.block_until_ready(logs)  # compiled and done: from here on, time is a step's own
            self.progress.begin(step)
        self.alarms.add(Step(step, self.indices, logs))
        # here the host waits for the device; on steps without a row it does not
        if self.plan.logs(step) or self.alarms.full:
            self.alarms.look()
        if not self.plan.logs(step):
            return
        self.bad.meet(self.tell)
        numbers = {name: float(value) for name, value in logs.items()}
        guard = {name: numbers.pop(name) for name in GUARD if name in numbers}
        norm = numbers.pop("grad_norm")
        first = {"loss": numbers.pop("loss"), **numbers}
        # the rate of this step, which was counted from 0
        speed = self.progress.update(
            step, [self.plan.task.words({name: first[name]}) for name in first]
        )
        if speed and self.ceiling:
            speed["mfu"] = speed["images_per_s"] / self.ceiling
        lr = float(jnp.asarray(self.plan.rate(step - 1)))
        row = {**first, "lr": lr, **speed, "grad_norm": norm, **_worth_a_row(guard)}
        # JSON has no word for infinity and NaN
        finite = {name: value for name, value in row.items() if math.isfinite(value)}
        self.metrics.add({"step": step, **finite})

    def saves(self, step: int) -> bool:
        """Whether to save after a step. In a row of skipped ones a save is put off until the first that is not: the
        state would have nothing new, and push a good one out."""
        self.owed |= self.plan.saves(step)
        if not self.owed:
            return False
        self.alarms.look()
        self.owed = self.alarms.row > 0 and step != self.plan.steps
        if not self.owed and not self.plan.logs(step):
            # what is saved of them is what all have found; on steps with a row that is known already
            self.bad.meet(self.tell)
        return not self.owed

    def scores(self, step: int, scores: Scores) -> None:
        """A row of metrics.jsonl and a line on the screen."""
        self.metrics.add(
            # by names of their own: val_accuracy stands beside accuracy, which is of the batch
            {"step": step, **{f"val_{name}": value for name, value in scores.numbers.items()}}
        )
        self.tell(f"step {step}/{self.plan.steps}  val {self.plan.task.words(scores.numbers)}")


def _worth_a_row(guard: Mapping[str, float]) -> dict[str, Any]:
    """The scale of the loss, where it has one, and the skipped steps where there are any."""
    found: dict[str, Any] = {name: guard[name] for name in ("loss_scale",) if name in guard}
    return found | ({"skipped": int(guard["skipped"])} if guard["skipped"] else {})
