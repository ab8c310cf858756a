"""The rows of metrics.jsonl on their way to other people's tools: TensorBoard, Weights & Biases, MLflow, Trackio."""

from __future__ import annotations

import json
import os
import queue
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from fmjax.config.run import RunConfig
from fmjax.engine import hosts
from fmjax.engine.metrics import Sink
from fmjax.engine.records import TRACKED, config_record
from fmjax.engine.tracking_tools import TOOLS, Opened, Series
from fmjax.engine.unreadable import Tell
from fmjax.errors import UsageError, escaped, sentence
from fmjax.serial import write_atomically

CLOSING_S = 60.0  # for what is still on its way when a run ends
SHOWN = 300  # letters of what a tool says

Sent = dict[str, int]  # name of a number -> the last step of which it was sent


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
    """Sends rows to the tools that are open, in their order, every number of a step once, whatever a crash repeats.

    A number goes out only behind the last step of which it was sent, which the run's folder remembers: a resumed run
    does its last steps again to the same bits, and a tool that comes late, or has failed, gets what it has missed.
    The sending is done by a thread, as a server may take its time, and no device has to wait for it.
    """

    def __init__(self, folder: Path, tell: Tell) -> None:
        self.path, self.tell = folder / TRACKED, tell
        self.records, damage = _read(self.path)
        if damage:
            tell(f"note    {self.path} is damaged ({damage}); the tools of --log begin a new run")
        self.opened: dict[str, Opened] = {}
        self.rows: queue.SimpleQueue[Mapping[str, Any] | None] = queue.SimpleQueue()
        self.failed = False
        self.thread = threading.Thread(target=self._work, name="trackers", daemon=True)

    def open(self, name: str, config: RunConfig) -> None:
        """Opens the run in a tool, or opens it again. Raises UsageError where that cannot be done."""
        tool, new = TOOLS[name], name not in self.records
        if new:
            self.records[name] = {"id": uuid.uuid4().hex[:12], "sent": {}}
        for variable, value in tool.environment.items():
            os.environ.setdefault(variable, value)
        series = Series(
            folder=self.path.parent,
            project=config.log_project,
            name=config.out,
            id=self.records[name]["id"],
            new=new,
            settings=config_record(config),
        )
        try:
            self.opened[name] = tool.open(series)
        except Exception as error:  # whatever a tool raises: nothing is trained yet
            self.close(failed=True)
            raise UsageError(
                f"--log {name} cannot open the run: {_said(error)}; {tool.way_out}, or leave it out"
            ) from error
        # before the first row: what a tool calls the run must not be forgotten by a crash
        self._remember()

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
        while (row := self.rows.get()) is not None:
            numbers = {name: value for name, value in row.items() if name != "step"}
            for name in list(self.opened):
                self._send(name, row["step"], numbers)
            # once for a row, and for all rows that an older run has left
            if self.rows.empty():
                self._remember()
        self._remember()
        for name, tool in list(self.opened.items()):
            try:
                tool.close(self.failed)
            except Exception as error:  # whatever a tool raises: the run is done
                self.tell(f"note    --log {name} was not closed: {_said(error)}")

    def _send(self, name: str, step: int, numbers: Mapping[str, float]) -> None:
        """The numbers of a row that a tool has not; one that fails is left out from then on."""
        sent: Sent = self.records[name]["sent"]
        new = {key: value for key, value in numbers.items() if step > sent.get(key, 0)}
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
        sent.update(dict.fromkeys(new, step))

    def _remember(self) -> None:
        try:
            write_atomically(self.path, json.dumps(self.records) + "\n")
        except OSError as error:
            # a full disk ends the run where a checkpoint meets it, not here
            self.tell(
                f"note    {sentence(error)}: --log may send numbers twice when the run resumes"
            )


def _said(error: Exception) -> str:
    """The first line of what a tool raises."""
    text = sentence(error).strip() or type(error).__name__
    return escaped(text.splitlines()[0][:SHOWN], SHOWN)


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The record of what was sent, and what is wrong with it: a damaged one is as good as none."""
    if not path.is_file():
        return {}, ""
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        return {}, escaped(str(error), SHOWN)
    whole = isinstance(found, dict) and all(_is_record(row) for row in found.values())
    return (found, "") if whole else ({}, "it is no record of steps")


def _is_record(row: Any) -> bool:
    if not isinstance(row, dict) or set(row) != {"id", "sent"}:
        return False
    # an id is a part of names and of a search in a tool
    named = isinstance(row["id"], str) and row["id"].isalnum() and row["id"].isascii()
    sent = row["sent"]
    return named and isinstance(sent, dict) and all(type(step) is int for step in sent.values())
