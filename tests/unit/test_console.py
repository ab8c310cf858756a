"""Nothing that is printed steers a terminal, and long work shows that it is alive."""

from __future__ import annotations

import io

import pytest

from fmjax import cli, console
from fmjax.console import SafeConsole, counted
from fmjax.errors import safe

HOSTILE = "\x1b]0;owned\x07\x1b[2J blocks\r\x9b31m \u202egnp.exe \u2028 \x00"


def test_what_could_steer_a_terminal_is_shown_as_an_escape():
    shown = safe(HOSTILE)
    assert shown.isprintable()
    assert "\\x1b]0;owned\\x07\\x1b[2J" in shown
    assert "\\u202e" in shown
    assert safe("Käse, 猫\n\tx") == "Käse, 猫\n\tx"


def test_the_console_and_the_commands_say_only_what_is_printable(capsys, monkeypatch):
    out = io.StringIO()
    SafeConsole(file=out).print(HOSTILE, soft_wrap=True)
    assert out.getvalue().strip("\n").isprintable()
    monkeypatch.setitem(cli.COMMANDS, "bad", cli.Command("", "", lambda args: fail(HOSTILE)))
    assert cli.main(["bad"]) == 2
    assert capsys.readouterr().err.strip("\n").isprintable()


def fail(text: str) -> None:
    raise cli.UsageError(text)


@pytest.fixture
def printed(monkeypatch) -> list[str]:
    """The lines on a console that is no terminal, of a clock that goes 6 seconds at a look."""
    lines: list[str] = []
    ticks = iter(range(0, 1000, 6))
    monkeypatch.setattr(console.console, "print", lines.append)
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(ticks)))
    return lines


def test_long_work_says_how_far_it_is_every_ten_seconds(printed):
    batches = [(50, i) for i in range(6)]
    assert list(counted(batches, 300, "images")) == list(range(6))
    assert printed == [
        "images 100 of 300, 8.3/s, 0:00:24 to go",
        "images 200 of 300, 8.3/s, 0:00:12 to go",
    ]


def test_short_work_says_nothing(printed):
    assert list(counted([(4, "a")], 4, "images")) == ["a"]
    assert printed == []
