"""What a person sees of long work: one live line on a terminal, plain lines elsewhere; metrics.jsonl always."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.live import Live
from rich.text import Text

from fmjax.console import clock, console


def write_atomically(path: Path, text: str) -> None:
    """The file has the old content or the new, never a part."""
    partial = path.with_name(path.name + ".part")
    partial.write_text(text)
    os.replace(partial, path)


class Metrics:
    """The rows of metrics.jsonl. Rows after the step that a run resumes from are taken out."""

    def __init__(self, path: Path, resume_step: int) -> None:
        self.path = path
        kept = [row for row in self.rows() if row["step"] <= resume_step]
        if kept != self.rows() or not path.exists():
            write_atomically(path, "".join(json.dumps(row) + "\n" for row in kept))

    def rows(self) -> list[dict[str, Any]]:
        """All rows; a last line that a crash cut short is left out."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return [json.loads(line) for line in lines if line.endswith("}")]

    def add(self, row: Mapping[str, Any]) -> None:
        with self.path.open("a") as file:
            file.write(json.dumps({k: round(v, 8) if isinstance(v, float) else v for k, v in row.items()}) + "\n")


class Progress:
    """Step, loss, lr, images/s, share of the time spent waiting for data, and time to go."""

    def __init__(self, steps: int, batch_size: int, done: int) -> None:
        self.steps, self.batch_size = steps, batch_size
        self.start = self.last = time.monotonic()
        self.first_step = self.last_step = done
        self.waited = 0.0
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

    def update(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Shows a line and returns what it says of speed."""
        now = time.monotonic()
        elapsed = max(now - self.last, 1e-9)
        rate = (step - self.last_step) * self.batch_size / elapsed
        speed = {"images_per_s": rate, "data_wait": self.waited / elapsed}
        left = (now - self.start) / max(step - self.first_step, 1) * (self.steps - step)
        self.last, self.last_step, self.waited = now, step, 0.0
        shown = "  ".join(f"{name} {value:.4g}" for name, value in values.items())
        self.show(
            f"step {step}/{self.steps}  {shown}  {rate:.0f} images/s  data wait {speed['data_wait']:.0%}  ETA "
            f"{clock(left)}"
        )
        return speed

    def show(self, line: str) -> None:
        """Replaces the live line; elsewhere prints."""
        if self.live:
            self.live.update(Text(line, overflow="fold", no_wrap=False))
        else:
            console.print(line)

    def print(self, line: str) -> None:
        """A line that stays."""
        console.print(line)
