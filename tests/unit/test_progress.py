"""The line that a person reads, and what its speed is of."""

from __future__ import annotations

import pytest

from fmjax.engine import watch
from fmjax.engine.watch import Progress

WORDS = ["loss 2", "accuracy 12.5%"]


class Clock:
    """Time that passes only when it is told to."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(watch, "time", clock)
    return clock


@pytest.fixture
def lines(monkeypatch):
    out: list[str] = []
    monkeypatch.setattr(Progress, "show", lambda self, line: out.append(line))
    return out


def test_compilation_evaluation_and_saving_are_no_part_of_the_speed(clock, lines):
    bar = Progress(100, 8, 0)
    clock.now += 60  # the first step, which compiles
    bar.begin(1)
    assert bar.update(1, WORDS) == {}
    with bar.waiting():
        clock.now += 1
    clock.now += 1
    with bar.paused():
        clock.now += 30
    assert bar.update(3, WORDS) == {"images_per_s": 8.0, "data_wait": 0.5}
    assert lines == [
        "step 1/100  loss 2  accuracy 12.5%",
        # 97 steps of 16 s, evaluation included
        "step 3/100  loss 2  accuracy 12.5%  8 img/s  wait 50%  ETA 0:25:52",
    ]


def test_the_first_time_to_go_leaves_compilation_out(clock, lines):
    bar = Progress(250, 64, 0)
    clock.now += 20
    bar.begin(1)
    clock.now += 9
    bar.update(10, WORDS)
    assert lines[-1].endswith("ETA 0:04:00")  # 240 steps of a second, not of 2.9


@pytest.mark.parametrize("steps", [10, 250, 99_999, 999_999])
def test_a_line_fits_80_columns(clock, lines, steps):
    bar = Progress(steps, 999, 0)
    clock.now += 1
    with bar.waiting():
        clock.now += 1.01 * steps / 100
    bar.update(steps // 2, ["loss 1.235e-05", "accuracy 100.0%"])
    clock.now += steps / 100
    bar.update(steps, ["loss 1.235e+05", "accuracy 98.8%"])
    assert max(map(len, lines)) <= 80
