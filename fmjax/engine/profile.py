"""A trace of some steps, as xprof and TensorBoard's profile page read it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import jax

from fmjax.engine.unreadable import Tell
from fmjax.errors import escaped, sentence

PROFILE = "profile"  # a folder of a run


class Profile:
    """Traces the steps of a range, those of them that are done. What goes wrong with it is told, and ends no run."""

    def __init__(self, folder: Path, steps: range, tell: Tell) -> None:
        self.folder, self.steps, self.tell = folder, steps, tell
        self.running = False

    def step(self, number: int) -> AbstractContextManager[Any]:
        """Around a step: waiting for its data and sending it to the devices."""
        if number not in self.steps:
            return nullcontext()
        if not self.running:
            self._start()
        # by this name and number the pages of xprof tell steps apart
        return jax.profiler.StepTraceAnnotation("train", step_num=number)

    def after(self, number: int, logs: Mapping[str, Any]) -> None:
        """Behind a step; logs: what it gives, which is there once it is done."""
        if self.running and number >= self.steps[-1]:
            # what the devices have not done yet would be missing
            jax.block_until_ready(logs)
            self.close()

    def close(self) -> None:
        """Writes the trace, if one is running."""
        if not self.running:
            return
        self.running = False
        try:
            jax.profiler.stop_trace()
        except Exception as error:  # a full disk, a library of the device's maker
            self._failed(error)
            return
        self.tell(f"profile {self.folder}; `xprof --logdir {self.folder}` shows it")

    def _start(self) -> None:
        try:
            jax.profiler.start_trace(str(self.folder))
            self.running = True
        except Exception as error:  # another trace of this process, a folder that cannot be written
            self._failed(error)

    def _failed(self, error: Exception) -> None:
        self.steps = range(0)
        reason = escaped(sentence(error) or type(error).__name__, 200)
        self.tell(f"note    no profile of steps is written: {reason}")
