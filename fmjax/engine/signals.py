"""What a process does that is asked to stop: a run saves its step, other work takes away what it has half written."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")
ASKED = (signal.SIGTERM, signal.SIGINT)  # by Slurm, Kubernetes and spot machines; by Ctrl-C


class Terminated(BaseException):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt: what is half written is taken away on the way out."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated inside the block; only the main thread may ask for that."""
    if not _is_main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Asked(Exception):
    """A run is to stop now: its state is that after a whole step."""


class Stopping:
    """While a run trains: the first SIGTERM or SIGINT asks it to stop after the step that it is in, the second ends the
    process at once.

    agreed: whether to stop at a place, given whether this process was asked to; of several processes, all must.
    """

    def __init__(self, agreed: Callable[[bool], bool] = bool) -> None:
        self.agreed = agreed
        self.signal: signal.Signals | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stopping:
        if _is_main_thread():
            self._before = {number: signal.signal(number, self._note) for number in ASKED}
        return self

    def __exit__(self, *raised: Any) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def check(self) -> None:
        """Raises Asked once the run has been asked to stop."""
        if self.agreed(self.signal is not None):
            raise Asked

    def sentence(self, step: int) -> str:
        """What is said of a run that has stopped."""
        name = "a signal" if self.signal is None else self.signal.name
        return f"stopped by {name} after step {step}, which is saved; run the same command to go on"

    def watched(self, batches: Iterable[T]) -> Iterator[T]:
        """The batches of work that may be cut short, as an evaluation is."""
        for batch in batches:
            self.check()
            yield batch

    def _note(self, number: int, frame: Any) -> None:
        if self.signal is not None:
            # no cleaning up: whoever asks twice has no time. What is saved is whole all the same
            os._exit(128 + number)
        self.signal = signal.Signals(number)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
