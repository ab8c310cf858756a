"""How rows go to the tools of --log: each number once, in order, whatever fails, and nobody waits."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import pytest

from fmjax.config.run import RunConfig, Tracker
from fmjax.engine import hosts, tracking
from fmjax.engine.metrics import Metrics
from fmjax.engine.sent import Sent
from fmjax.engine.tracking_tools import TOOLS, Numbers, Opened, Series, Tool
from fmjax.errors import UsageError

ROWS = [{"step": step, "loss": step / 4, "lr": 0.1} for step in range(1, 7)]


@dataclass
class Fake:
    """A tool of the tests' own. fails_at: the step whose numbers it refuses; waits: until what it sends is let go."""

    fails_at: int = 0
    waits: threading.Event | None = None
    opened: list[Series] = field(default_factory=list)
    sent: list[tuple[int, Numbers]] = field(default_factory=list)
    closed: list[bool] = field(default_factory=list)

    def open(self, series: Series) -> Opened:
        self.opened.append(series)
        return Opened(self.send, self.closed.append)

    def send(self, step: int, numbers: Numbers) -> None:
        if self.waits is not None:
            self.waits.wait()
        if step == self.fails_at:
            raise ConnectionError("no route\nto the host")
        self.sent.append((step, numbers))


@pytest.fixture
def fake(monkeypatch) -> Fake:
    tool = Fake()
    monkeypatch.setitem(TOOLS, "wandb", Tool("json", tool.open, "look into it"))
    return tool


def steps_of(fake: Fake, name: str) -> list[int]:
    return [step for step, numbers in fake.sent if name in numbers]


@contextmanager
def run(folder: Path, start: int, told: list[str], **fields: Any) -> Iterator[Metrics]:
    """The metrics of a run that goes on from a step, on their way to W&B."""
    config = RunConfig(out=str(folder), log=("wandb",), **fields)
    with tracking.tracked(config, told.append) as sink:
        yield Metrics(folder / "metrics.jsonl", start, also=sink)


def test_every_tool_of_the_flag_is_there():
    assert get_args(Tracker) == tuple(TOOLS)


def test_steps_that_are_done_again_are_not_sent_again(tmp_path, fake):
    told: list[str] = []
    with run(tmp_path, 0, told) as metrics:
        for row in (*ROWS[:4], {"step": 4, "val_loss": 1.0}):
            metrics.add(row)
    # the last save was behind step 2, and the scores of step 4 come again, too
    with run(tmp_path, 2, told) as metrics:
        for row in (*ROWS[2:4], {"step": 4, "val_loss": 1.0}, *ROWS[4:]):
            metrics.add(row)
    assert steps_of(fake, "loss") == steps_of(fake, "lr") == [1, 2, 3, 4, 5, 6]
    assert steps_of(fake, "val_loss") == [4]
    assert [numbers["loss"] for _, numbers in fake.sent if "loss" in numbers] == [
        row["loss"] for row in ROWS
    ]
    assert len({series.id for series in fake.opened}) == 1
    assert [series.last for series in fake.opened] == [0, 4]
    assert fake.closed == [False, False]
    assert told == []


def test_a_tool_that_fails_is_told_once_and_gets_the_rest_when_the_run_goes_on(tmp_path, fake):
    fake.fails_at = 3
    told: list[str] = []
    with run(tmp_path, 0, told) as metrics:
        for row in ROWS[:5]:
            metrics.add(row)
    assert len(told) == 1
    assert "--log wandb gets nothing from step 3 on: no route; training and" in told[0]
    assert steps_of(fake, "loss") == [1, 2]
    assert len(metrics.rows()) == 5

    fake.fails_at = 0
    with run(tmp_path, 5, told, log_project="vision") as metrics:
        metrics.add(ROWS[5])
    assert steps_of(fake, "loss") == [1, 2, 3, 4, 5, 6]
    assert [series.project for series in fake.opened] == ["fmjax", "vision"]


def test_a_tool_that_comes_later_gets_all_rows(tmp_path, fake):
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for row in ROWS:
        metrics.add(row)
    with run(tmp_path, 4, []):
        pass
    assert steps_of(fake, "loss") == [1, 2, 3, 4]


def test_a_run_whose_record_is_gone_is_a_new_one_to_its_tools(tmp_path, fake):
    with run(tmp_path, 0, []) as metrics:
        metrics.add(ROWS[0])
    (tmp_path / "trackers.jsonl").unlink()
    with run(tmp_path, 1, []):
        pass
    assert [series.last for series in fake.opened] == [0, 0]
    assert len({series.id for series in fake.opened}) == 2
    assert steps_of(fake, "loss") == [1, 1]


def test_a_run_that_ends_by_an_error_has_failed_to_its_tools(tmp_path, fake):
    with pytest.raises(KeyError), run(tmp_path, 0, []):
        raise KeyError
    assert fake.closed == [True]


def test_a_server_that_does_not_answer_keeps_nobody_waiting(tmp_path, fake, monkeypatch):
    fake.waits = threading.Event()
    monkeypatch.setattr(tracking, "CLOSING_S", 0.05)
    told: list[str] = []
    with run(tmp_path, 0, told) as metrics:
        for row in ROWS:
            metrics.add(row)
        assert len(metrics.rows()) == len(ROWS)
    assert "not all numbers have reached wandb; the same command" in told[0]
    fake.waits.set()


def test_a_full_disk_ends_no_run(tmp_path, fake, monkeypatch):
    told: list[str] = []

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "trackers.jsonl")

    monkeypatch.setattr(Sent, "reached", full)
    with run(tmp_path, 0, told) as metrics:
        metrics.add(ROWS[0])
    assert steps_of(fake, "loss") == [1]
    assert "trackers.jsonl: No space left on device: --log may send numbers twice" in told[0]


def test_a_tool_that_cannot_open_the_run_is_one_sentence(tmp_path, fake, monkeypatch):
    def refuse(series: Series) -> Opened:
        raise RuntimeError("no key\nand no name")

    monkeypatch.setitem(TOOLS, "mlflow", Tool("json", refuse, "log in"))
    config = RunConfig(out=str(tmp_path), log=("wandb", "mlflow"))
    with pytest.raises(UsageError) as found, tracking.tracked(config, print):
        pass
    assert str(found.value) == ("--log mlflow cannot open the run: no key; log in, or leave it out")
    # the one that was open is closed, as of a run that has failed
    assert fake.closed == [True]


def test_only_the_process_that_writes_opens_anything(tmp_path, fake, monkeypatch):
    monkeypatch.setattr(hosts, "is_first", lambda: False)
    config = RunConfig(out=str(tmp_path), log=("wandb",))
    with tracking.tracked(config, print) as sink:
        assert sink is None
    assert fake.opened == []
    # and needs no package of it
    monkeypatch.setitem(TOOLS, "wandb", Tool("no_such_package", fake.open, ""))
    tracking.check_installed(["wandb"])


LINES = (
    '{"tool": "wandb", "id": "a1", "steps": {"loss": 2}}',
    '{"tool": "wandb", "step": 3, "names": ["loss", "lr"]}',
)


@pytest.mark.parametrize(
    ("lines", "steps", "damaged"),
    [
        (LINES, {"loss": 3, "lr": 3}, 0),
        ((*LINES, '{"tool": "wandb", "st'), {"loss": 3, "lr": 3}, 0),  # cut short by a crash
        ((LINES[0], "{", LINES[1]), {"loss": 3, "lr": 3}, 1),
        ((LINES[0], "[]", '{"tool": "wandb", "step": 9.5, "names": []}', ""), {"loss": 2}, 2),
        (('{"tool": "wandb", "id": "a\' or 1", "steps": {}}', LINES[1], ""), None, 2),
        (('{"tool": "wandb", "id": "a", "steps": {"loss": "1"}}', ""), None, 1),
        (("[" * 100_000, ""), None, 1),
    ],
    ids=["whole", "cut short", "a line", "no rows", "an id", "steps", "deep"],
)
def test_what_was_sent_is_read_for_all_that_its_lines_say(tmp_path, lines, steps, damaged):
    path = tmp_path / "trackers.jsonl"
    end = "" if lines[-1].endswith('"st') or not lines[-1] else "\n"
    path.write_text("\n".join(lines) + end)
    sent = Sent(path)
    assert (sent.steps.get("wandb"), sent.damaged) == (steps, damaged)
    # opened again it is whole, and a tool that was known keeps its id
    assert sent.begin("wandb") == (steps is None)
    again = Sent(path)
    assert (again.ids, again.steps, again.damaged) == (sent.ids, sent.steps, 0)
    assert steps is None or again.ids == {"wandb": "a1"}


def test_damage_is_told(tmp_path):
    (tmp_path / "trackers.jsonl").write_text("{}\n\n")
    told: list[str] = []
    tracking.Trackers(tmp_path, told.append).close(failed=False)
    assert "trackers.jsonl is damaged; --log may send numbers twice" in told[0]


def test_what_a_tool_has_not_written_before_a_crash_is_sent_again(tmp_path, fake, monkeypatch):
    # a tool that writes later what it is given now
    monkeypatch.setitem(TOOLS, "wandb", replace(TOOLS["wandb"], settles_s=60.0))
    config = RunConfig(out=str(tmp_path), log=("wandb",))
    crashed = tracking.Trackers(tmp_path, print)
    crashed.open("wandb", config)
    for row in ROWS[:3]:
        crashed.add(row)
    while len(fake.sent) < 3:
        time.sleep(0.01)
    with run(tmp_path, 0, []) as metrics:
        for row in ROWS[:4]:
            metrics.add(row)
    assert steps_of(fake, "loss") == [1, 2, 3, 1, 2, 3, 4]
    # and what it had the time to write is not, as is all of a run that has ended well
    with run(tmp_path, 4, []):
        pass
    assert steps_of(fake, "loss") == [1, 2, 3, 1, 2, 3, 4]
    crashed.close(failed=True)


def test_a_row_is_remembered_once_it_is_sent(tmp_path, fake):
    config = RunConfig(out=str(tmp_path), log=("wandb",))
    crashed = tracking.Trackers(tmp_path, print)
    crashed.open("wandb", config)
    crashed.add(ROWS[0])
    while Sent(tmp_path / "trackers.jsonl").steps["wandb"] != {"loss": 1, "lr": 1}:
        time.sleep(0.01)
    crashed.close(failed=True)
