"""The rows of metrics.jsonl on their way to other people's tools: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmjax.config.run import RunConfig
from fmjax.engine import hosts
from fmjax.engine.metrics import Sink
from fmjax.engine.records import TRACKED, config_record
from fmjax.engine.sent import Sent
from fmjax.engine.tracking_tools import TOOLS, Numbers, Opened, Series
from fmjax.engine.unreadable import Tell
from fmjax.errors import UsageError, escaped, sentence

CLOSING_S = 60.0  # for what is still on its way when a run ends
TICK_S = 1.0  # how often a thread without a row looks at what has settled
SHOWN = 300  # letters of what a tool says

Waiting = deque[tuple[float, int, list[str]]]  # when it is safe, the step, the names of its numbers


def check_installed(names: Iterable[str]) -> None:
    """Raises UsageError for a tool whose package is not here."""
    # the first process writes for all: the others need no package
    missing = [name for name in names if hosts.is_first() and not find_spec(TOOLS[name].package)]
    if missing:
        name, package = missing[0], TOOLS[missing[0]].package
        raise UsageError(
            f"--log {name} needs {package}, which is not installed; run `pip install 'fmjax[{name}]'`, or leave it out"
        )


@contextmanager
def tracked(config: RunConfig, tell: Tell) -> Iterator[Sink | None]:
    """The function that takes the rows of a run, in the process that writes; None where no tool is to get them.

    Raises UsageError where a tool cannot open the run. tell: is given a line for each that fails later on.
    """
    if not config.log or not hosts.is_first():
        yield None
        return
    trackers = Trackers(Path(config.out), tell)
    for name in config.log:
        trackers.open(name, config)
    failed = True
    try:
        yield trackers.add
        failed = False
    finally:
        trackers.close(failed=failed)


class Trackers:
    """Sends rows to the tools that are open, in their order, every number of a step once, whatever a run repeats.

    A number goes out only behind the last step that a tool has of it, which the run's folder remembers: a resumed run
    does its last steps again to the same bits, and a tool that comes late, or has failed, gets what it has missed.
    What a tool only writes a while later it could lose in a crash: that is remembered once it has had the time.
    The sending is done by a thread, as a server may take its time, and no device has to wait for it.
    """

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.tell, self.sent = tell, Sent(folder / TRACKED)
        if self.sent.damaged:
            tell(f"note    {self.sent.path} is damaged; --log may send numbers twice")
        self.opened: dict[str, Opened] = {}
        self.given: dict[str, dict[str, int]] = {}  # as in the folder, and what has not settled
        self.waiting: dict[str, Waiting] = {}
        self.rows: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self.failed = False
        self.thread = threading.Thread(target=self._work, name="trackers", daemon=True)

    def open(self, name: str, config: RunConfig) -> None:
        """Opens the run in a tool, or opens it again. Raises UsageError where that cannot be done."""
        tool = TOOLS[name]
        self.sent.begin(name)
        for variable, value in tool.environment.items():
            os.environ.setdefault(variable, value)
        series = Series(
            folder=self.sent.path.parent,
            project=config.log_project,
            name=config.out,
            id=self.sent.ids[name],
            last=self.sent.last(name),
            settings=config_record(config),
        )
        try:
            self.opened[name] = tool.open(series)
        except Exception as error:  # whatever a tool raises: nothing is trained yet
            self.close(failed=True)
            raise UsageError(
                f"--log {name} cannot open the run: {_said(error)}; {tool.way_out}, or leave it out"
            ) from error
        self.given[name], self.waiting[name] = dict(self.sent.steps[name]), deque()

    def add(self, row: Mapping[str, Any]) -> None:
        """A row, which is sent later."""
        self._start()
        self.rows.put(row)

    def close(self, *, failed: bool) -> None:
        """Until all is sent, or for a minute. failed: what the tools are told of the run."""
        self.failed = failed
        self._start()
        self.rows.put(None)
        self.thread.join(CLOSING_S)
        if self.thread.is_alive():
            names = ", ".join(self.opened)
            self.tell(
                f"note    not all numbers have reached {names}; the same command sends them when it goes on"
            )

    def _start(self) -> None:
        # once: a thread that has begun has a number for good
        if self.thread.ident is None:
            self.thread.start()

    def _work(self) -> None:
        """The thread: rows until there is None, then the tools are closed."""
        while True:
            # without a row there may still be something that has settled in the meantime
            try:
                row = self.rows.get(timeout=TICK_S)
            except queue.Empty:
                row = {}
            if row is None:
                break
            numbers = {name: value for name, value in row.items() if name != "step"}
            for name in list(self.opened):
                if numbers:
                    self._send(name, row["step"], numbers)
                self._settle(name, time.monotonic())
        for name in list(self.opened):
            self._close(name)

    def _send(self, name: str, step: int, numbers: Numbers) -> None:
        """The numbers of a row that a tool has not; one that fails is left out from then on."""
        given = self.given[name]
        new = {key: value for key, value in numbers.items() if step > given.get(key, 0)}
        if not new:
            return
        try:
            self.opened[name].send(step, new)
        except Exception as error:  # whatever a tool raises: the run goes on without it
            del self.opened[name]
            self.tell(
                f"note    --log {name} gets nothing from step {step} on: {_said(error)}; training and metrics.jsonl go "
                f"on, and the same command sends the rest when it resumes"
            )
            return
        given.update(dict.fromkeys(new, step))
        safe_at = time.monotonic() + TOOLS[name].settles_s
        self.waiting[name].append((safe_at, step, list(new)))

    def _settle(self, name: str, now: float) -> None:
        """Remembers what a tool has written by now."""
        waiting = self.waiting[name]
        try:
            while waiting and waiting[0][0] <= now:
                _, step, names = waiting.popleft()
                self.sent.reached(name, step, names)
        except OSError as error:
            # a full disk ends the run where a checkpoint meets it, not here
            waiting.clear()
            self.tell(
                f"note    {sentence(error)}: --log may send numbers twice when the run resumes"
            )

    def _close(self, name: str) -> None:
        try:
            self.opened[name].close(self.failed)
        except Exception as error:  # whatever a tool raises: the run is done
            self.tell(f"note    --log {name} was not closed: {_said(error)}")
            return
        self._settle(name, math.inf)


def _said(error: Exception) -> str:
    """The first line of what a tool raises."""
    text = sentence(error).strip() or type(error).__name__
    return escaped(text.splitlines()[0][:SHOWN], SHOWN)
