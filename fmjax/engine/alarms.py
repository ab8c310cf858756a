"""What is said of the steps that a device has done: those that were skipped, losses that leap, runs that are lost."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from fmjax.engine import hosts
from fmjax.engine.evaluate import NotFinite
from fmjax.engine.unreadable import Tell
from fmjax.errors import DivergedError

# A loss leaps where it is over 3 times the median of the last 50 and over twice the largest of them. Near zero the
# losses of small batches differ by far more than 3 times: of 2,900 steps of the quickstart with batches of 8 and 64 and
# rates of 1e-3 to 1e-2, the first condition alone names 91, both name none.
OVER_MEDIAN, OVER_LARGEST = 3.0, 2.0
WINDOW, FEWEST = 50, 10  # losses that one is compared with, and without which none is
NAMED = 64  # examples of a batch whose indices are said
# Without a row for so long the host waits for a device all the same: what it has not looked at takes memory
UNSEEN = 100
LOOKED_AT = ("loss", "grad_norm", "skipped", "skipped_in_row", "loss_scale")


@dataclass(frozen=True)
class Step:
    """One step that was sent to the devices; its logs are there once it is done."""

    number: int
    indices: np.ndarray  # of its examples, in the training set: those that this process has read
    logs: Mapping[str, Any]


class Alarms:
    """Takes the logs of every step without waiting for them, and looks at them when it is told to.

    limit: the skipped steps in a row that a run may have. saved: gives the steps that are on disk. losses: of the last
    steps before this one.
    """

    def __init__(
        self,
        limit: int,
        tell: Tell,
        saved: Callable[[], Sequence[int]],
        losses: Iterable[float] = (),
    ) -> None:
        self.limit, self.tell, self.saved = limit, tell, saved
        self.recent = deque(losses, maxlen=WINDOW)
        self.unseen: list[Step] = []
        # steps that were skipped, up to the last that was looked at: in a row, and in all
        self.row = self.skipped = 0

    def add(self, step: Step) -> None:
        """A step, to be looked at later."""
        self.unseen.append(step)

    @property
    def full(self) -> bool:
        """Whether to look now, whatever else there is to do."""
        return len(self.unseen) >= UNSEEN

    def look(self) -> None:
        """Waits for the steps since the last look and says what is wrong with them. Raises DivergedError where too many
        in a row were skipped, though a later one was not: whether a run ends must not depend on when it is looked."""
        steps, self.unseen = self.unseen, []
        wanted = [
            {name: step.logs[name] for name in LOOKED_AT if name in step.logs} for step in steps
        ]
        for step, numbers in zip(steps, jax.device_get(wanted), strict=True):
            self._judge(step, {name: float(value) for name, value in numbers.items()})

    def _judge(self, step: Step, numbers: dict[str, float]) -> None:
        """One step, after those before it."""
        loss, norm = numbers["loss"], numbers["grad_norm"]
        self.row, self.skipped = int(numbers["skipped_in_row"]), int(numbers["skipped"])
        # of a step without a skip only an overflow leaves a gradient that is not finite: see guard.after
        if self.row:
            self.tell(
                f"step {step.number} skipped: loss {loss:.4g}, norm of the gradient {norm:.4g}; its examples: "
                f"{_listed(step.indices)}"
            )
        elif not math.isfinite(norm):
            self.tell(
                f"step {step.number}: the gradient overflowed in float16; the loss is scaled by "
                f"{numbers['loss_scale']:.4g} from here on, half of before"
            )
        if self.row > self.limit:
            first = step.number - self.row + 1
            raise DivergedError(
                f"steps {first} to {step.number} were skipped, as their loss or gradient is not finite, more than "
                f"--recipe.max-skipped {self.limit} in a row; {self.way_out(first)}"
            )
        if math.isfinite(loss):
            self._compare(step.number, loss)

    def _compare(self, number: int, loss: float) -> None:
        """Says where a loss leaps above the last ones, of which it becomes one."""
        if len(self.recent) >= FEWEST:
            median = float(np.median(self.recent))
            if loss > max(OVER_MEDIAN * median, OVER_LARGEST * max(self.recent)):
                self.tell(
                    f"step {number}: loss {loss:.4g} leaps above the last {len(self.recent)}, of median {median:.4g}"
                )
        self.recent.append(loss)

    def summary(self, steps: int) -> list[str]:
        """What is said at the end of a run of so many steps. Raises DivergedError where all were skipped: a run that is
        shorter than the limit has learned nothing, and says so as a longer one does."""
        if not self.skipped:
            return []
        if self.skipped >= steps:
            raise DivergedError(
                f"all {steps} steps were skipped, as their loss or gradient is not finite; lower --recipe.lr or look "
                f"into the loss, and start over with --fresh"
            )
        return [f"skipped {self.skipped} of {steps} steps, whose loss or gradient was not finite"]

    def way_out(self, first: int) -> str:
        """What to do where the step `first`, and none after it, had finite numbers."""
        # what was saved right before it holds the very parameters that have failed
        good = max((step for step in self.saved() if step < first - 1), default=None)
        if good is None:
            return "lower --recipe.lr and start over with --fresh, as no good step is saved"
        return (
            f"lower --recipe.lr and go on from step {good}, the last good one that is saved, with "
            f"--from-step {good}"
        )

    @contextmanager
    def scoring(self, number: int) -> Iterator[None]:
        """Around an evaluation after a step. Raises DivergedError, with a way out, where its outputs are no numbers."""
        try:
            yield
        except NotFinite as error:
            first = number - self.row + 1
            raise DivergedError(
                f"after step {number} {error.found}; {self.way_out(first)}"
            ) from error


def _listed(indices: np.ndarray) -> str:
    """The examples of a batch, by their places in the training set. All processes skip the same steps and meet here."""
    found = sorted({index for part in hosts.exchanged(indices.tolist()) for index in part})
    shown = ", ".join(map(str, found[:NAMED]))
    return shown if len(found) <= NAMED else f"{shown}, ... ({len(found)} in all)"
