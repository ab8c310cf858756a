"""The line that a person reads, and what its speed is of."""

from __future__ import annotations

import io

import pytest
from rich.progress import Progress as Bar

from fmjax import console
from fmjax.console import SafeConsole
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


def terminal(monkeypatch, width: int) -> SafeConsole:
    """A terminal of so many letters in the place of the console."""
    made = SafeConsole(file=io.StringIO(), width=width, force_terminal=True, markup=False)
    monkeypatch.setattr(console, "console", made)
    monkeypatch.setattr(watch, "console", made)
    return made


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (90, "step 500/1000  loss 1.235e-05  accuracy 100.0%  8 img/s  wait 0%  ETA 0:08:20"),
        (70, "step 500/1000  loss 1.235e-05  accuracy 100.0%  8 img/s  ETA 0:08:20"),
        (60, "step 500/1000  loss 1.235e-05  accuracy 100.0%  ETA 0:08:20"),
        (50, "step 500/1000  loss 1.235e-05  ETA 0:08:20"),
        (40, "step 500/1000  loss 1.235e-05"),
        (20, "step 500/1000  loss\u2026"),
    ],
)
def test_a_line_of_a_narrow_terminal_is_one_without_what_is_least_missed(
    clock, monkeypatch, width, line
):
    shown = terminal(monkeypatch, width)
    bar = Progress(1000, 8, 0)
    clock.now += 500
    assert bar.update(500, ["loss 1.235e-05", "accuracy 100.0%"])["data_wait"] == 0
    [only] = shown.render_lines(bar.live.renderable, pad=False)
    assert "".join(part.text for part in only) == line


def test_the_first_line_of_a_narrow_terminal_is_one_too(clock, monkeypatch):
    shown = terminal(monkeypatch, 40)
    bar = Progress(1000, 8, 0)
    bar.begin(1)
    bar.update(1, ["loss 1.235e-05", "accuracy 100.0%"])
    assert len(shown.render_lines(bar.live.renderable)) == 1
    assert str(bar.live.renderable) == "step 1/1000  loss 1.235e-05"


def test_a_file_has_all_numbers_of_a_task(clock, lines):
    bar = Progress(1000, 8, 0)
    words = [f"number_{index} 0.1234" for index in range(6)]
    bar.begin(1)
    bar.update(1, words)
    clock.now += 1
    bar.update(2, words)
    assert all(word in line for line in lines for word in words)
    assert lines[-1].endswith("8 img/s  ETA 0:16:38")


@pytest.mark.parametrize("width", [40, 49, 50, 60, 71, 72, 80, 120])
def test_a_bar_is_one_line_with_what_is_done_and_the_time_to_go(monkeypatch, width):
    shown = terminal(monkeypatch, width)
    bar = Bar(*console._bar(width), console=shown)
    bar.update(bar.add_task("images", total=1_281_167, rate=12345.6), completed=1_000_000)
    [line] = shown.render_lines(bar.get_renderable())
    text = "".join(part.text for part in line)
    assert text.startswith("images ")
    assert "1,000,000 of 1,281,167" in text
    assert ("12345.6/s" in text) == (width >= 50)
    assert "\u2026" not in text
    assert text.rstrip().endswith("-:--:--")


class Cell:
    """What a notebook shows below a cell: outputs, of which one can be written over."""

    def __init__(self) -> None:
        self.outputs: list[str] = []

    def display(self, shown, *, raw, display_id):
        assert raw
        assert display_id
        self.outputs.append(shown["text/plain"])
        return Handle(self, len(self.outputs) - 1)


class Handle:
    """One of the outputs."""

    def __init__(self, cell: Cell, place: int) -> None:
        self.cell, self.place = cell, place

    def update(self, shown, *, raw):
        assert raw
        self.cell.outputs[self.place] = shown["text/plain"]


@pytest.fixture
def cell(monkeypatch) -> Cell:
    """The output of a notebook's cell, in which everything speaks."""
    cell = Cell()
    monkeypatch.setattr("IPython.display.display", cell.display)
    monkeypatch.setattr(console.console, "is_jupyter", True)
    return cell


def test_a_notebook_shows_one_line_of_all_steps(clock, cell):
    with Progress(100, 8, 0) as bar:
        bar.begin(1)
        for step in range(2, 51):
            clock.now += 1
            bar.update(step, WORDS)
    assert cell.outputs == ["step 50/100  loss 2  accuracy 12.5%  8 img/s  wait 0%  ETA 0:00:50"]


def test_a_name_moves_no_cursor_of_a_notebook_either(cell):
    line = console.CellLine()
    line.update("cat\x1b[2J.png")
    assert "\x1b" not in cell.outputs[0]


def test_a_process_that_is_to_be_quiet_shows_no_line_in_a_notebook(cell, monkeypatch):
    monkeypatch.setattr(console.console, "quiet", True)
    console.CellLine().update("step 1")
    assert cell.outputs == []


def test_long_work_is_one_line_of_a_notebook(cell, monkeypatch):
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)

    def batches():
        for number in range(5):
            clock.now += 11
            yield 10, number

    assert list(console.counted(batches(), 50, "images")) == [0, 1, 2, 3, 4]
    assert len(cell.outputs) == 1
    assert cell.outputs[0].startswith("images 40 of 50, ")
