"""What a person sees of long work: one live line on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.live import Live
from rich.text import Text

from fmjax.console import clock, console

COLUMNS = 80


class Progress:
    """Step, loss, accuracy, images/s, share of the time spent waiting for data, and time to go.

    Speed is that of training alone: the first step, which compiles, is left out by `begin`, evaluation and saving by
    `paused`. The time to go counts all but the first step.
    """

    def __init__(self, steps: int, batch_size: int, done: int) -> None:
        self.steps, self.batch_size = steps, batch_size
        self.begin(done)
        self.live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    def __enter__(self) -> Progress:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
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
        self.last += time.monotonic() - start

    def update(self, step: int, *, loss: float, accuracy: float) -> dict[str, float]:
        """Shows a line and returns what it says of speed: nothing where no step has been measured."""
        shown = [f"step {step}/{self.steps}", f"loss {loss:.4g}", f"accuracy {accuracy:.1%}"]
        if step == self.first_step:
            self.show("  ".join(shown))
            return {}
        now = time.monotonic()
        elapsed = max(now - self.last, 1e-9)
        rate, wait = (step - self.last_step) * self.batch_size / elapsed, min(self.waited / elapsed, 1.0)
        left = (now - self.start) / (step - self.first_step) * (self.steps - step)
        self.last, self.last_step, self.waited = now, step, 0.0
        shown += [f"{rate:.0f} img/s", f"wait {wait:.0%}", f"ETA {clock(left)}"]
        self.show(fitting(shown))
        return {"images_per_s": rate, "data_wait": wait}

    def show(self, line: str) -> None:
        """Replaces the live line; elsewhere prints."""
        if self.live:
            self.live.update(Text(line, overflow="fold", no_wrap=False))
        else:
            console.print(line)

    def print(self, line: str) -> None:
        """A line that stays."""
        console.print(line)


def fitting(parts: list[str]) -> str:
    """The parts on a line of 80 columns; with very long numbers the share of waiting, the last but one, is left out."""
    line = "  ".join(parts)
    return line if len(line) <= COLUMNS else "  ".join([*parts[:-2], parts[-1]])
