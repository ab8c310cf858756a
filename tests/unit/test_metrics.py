"""metrics.jsonl after a crash: what is whole is kept, what is not is said, and no row is glued to another."""

from __future__ import annotations

import pytest

from fmjax.engine.metrics import Metrics

ROWS = [{"step": step, "loss": step / 4} for step in range(1, 5)]


@pytest.fixture
def path(tmp_path):
    metrics = Metrics(tmp_path / "metrics.jsonl", 0)
    for row in ROWS:
        metrics.add(row)
    return tmp_path / "metrics.jsonl"


def test_rows_after_the_step_that_is_resumed_are_taken_out(path):
    metrics = Metrics(path, 2)
    assert metrics.rows() == ROWS[:2]
    assert metrics.dropped == ""
    metrics.add(ROWS[2])
    assert [row["step"] for row in Metrics(path, 4).rows()] == [1, 2, 3]


TORN = {
    "cut short": b'{"step": 5, "lo',
    "cut in a number": b'{"step": 5',
    "glued to the next": b'{"step": 5, "lo{"step": 5, "loss": 1.25}\n',
    "NUL bytes": b"\0" * 40,
    "NUL bytes and a row": b"\0" * 40 + b'{"step": 5}\n',
    "no step": b'{"loss": 1.25}\n',
    "a step of text": b'{"step": "5"}\n',
    "a step that is true": b'{"step": true}\n',
    "a loss of text": b'{"step": 5, "loss": "low"}\n',
    "no object": b"[5, 1.25]\n",
    "a number": b"5\n",
    "not text": b"\xff\xfe\n",
    "deep": b"[" * 100_000 + b"\n",
    "too many digits": b'{"step": ' + b"9" * 10_000 + b"}\n",
}


@pytest.mark.parametrize("torn", TORN)
def test_a_torn_last_row_is_dropped_and_said(path, torn):
    with path.open("ab") as file:
        file.write(TORN[torn])
    metrics = Metrics(path, 4)
    assert metrics.dropped == f"{path}: line 5 is damaged and left out"
    metrics.add({"step": 5, "loss": 0.5})
    assert metrics.rows() == [*ROWS, {"step": 5, "loss": 0.5}]
    assert Metrics(path, 5).dropped == ""


def test_damaged_rows_in_the_middle_are_dropped_and_said_by_line(path):
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], b"\0\0\n", lines[1], lines[2][:9] + b"\n", lines[3]]))
    metrics = Metrics(path, 4)
    assert metrics.rows() == [ROWS[0], ROWS[1], ROWS[3]]
    assert metrics.dropped == f"{path}: lines 2, 4 (2 in all) are damaged and left out"


def test_a_row_whose_newline_was_lost_is_kept_and_nothing_is_glued_to_it(path):
    path.write_bytes(path.read_bytes()[:-1])
    metrics = Metrics(path, 4)
    metrics.add({"step": 5})
    assert metrics.dropped == ""
    assert metrics.rows() == [*ROWS, {"step": 5}]


def test_a_row_that_a_full_disk_cut_while_the_run_went_on_spoils_no_other(path):
    metrics = Metrics(path, 4)
    with path.open("ab") as file:
        file.write(b'{"step": 5, "lo')
    metrics.add({"step": 6})
    assert metrics.rows() == [*ROWS, {"step": 6}]
    assert Metrics(path, 6).dropped == f"{path}: line 5 is damaged and left out"
