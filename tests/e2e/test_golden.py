"""What the command line says, kept in tests/golden: `pytest tests/e2e/test_golden.py --write-golden` writes it anew.

help/ has the help of every command at 80 letters, errors.txt after each command that cannot work its exit code and its
sentence. A command of your own is a line "$ fmjax ..." there, and the same call.
"""

from __future__ import annotations

import contextlib
import re
import shlex
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from fmjax import names
from fmjax.cli import main
from fmjax.commands import COMMANDS
from fmjax.commands.completing import help_of

GOLDEN = Path(__file__).parents[1] / "golden"
HELP, ERRORS = GOLDEN / "help", GOLDEN / "errors.txt"
STORED = Path(__file__).parents[1] / "reliability" / "stored"
EXIT_CODES = range(2, 8)
WIDTH = 80

# what the commands that are tried find
THERE = {
    *("pictures", "empty", "run"),
    *("empty.py", "wrong.py", "table.csv", "other.safetensors", "broken.safetensors"),
}
VERBS = [(name, verb) for name, command in COMMANDS.items() for verb in ("", *command.verbs)]
VERBS += [("report", "--backbones")]  # a flag that makes another command of it
PAGES = {" ".join(filter(None, pair)): pair for pair in VERBS}


def page_of(page: str) -> Path:
    return HELP / f"{page.replace(' ', '.')}.txt"


def said(page: str) -> str:
    name, verb = PAGES[page]
    text = help_of(COMMANDS[name], *filter(None, [verb]), width=WIDTH)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def words(text: str) -> str:
    """A text without its boxes and line breaks, which are the help printer's own and change with its versions."""
    return " ".join(re.sub("[╭─╮│╰╯]", " ", text).split())


@pytest.mark.parametrize("page", PAGES)
def test_a_help_is_the_one_that_is_kept(page, request):
    if request.config.getoption("write_golden"):
        HELP.mkdir(exist_ok=True)
        page_of(page).write_text(said(page))
    assert page_of(page).is_file(), f"`pytest {Path(__file__).name} --write-golden` writes it"
    assert words(said(page)) == words(page_of(page).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_a_help_fits_80_letters_and_has_an_example(page):
    text = said(page)
    wide = [line for line in text.splitlines() if len(line) > WIDTH]
    assert [line for line in wide if not line.startswith(("usage:", "Example:"))] == []
    name, verb = PAGES[page]
    [example] = re.findall(r"^Example: (fmjax .*)$", text, re.MULTILINE)
    assert example.split()[1] == name
    assert COMMANDS[name].verbs == () or verb in ("", example.split()[2])


def test_the_overview_is_kept_and_fits(capsys, request):
    assert main(["--help"]) == 0
    text, path = capsys.readouterr().out, HELP / "fmjax.txt"
    if request.config.getoption("write_golden"):
        path.write_text(text)
    assert text == path.read_text()
    assert max(map(len, text.splitlines())) <= WIDTH


@pytest.mark.parametrize("width", [30, 60])
@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["ckpt", "--help"]])
def test_a_list_of_commands_is_folded_on_a_narrow_terminal(capsys, monkeypatch, words, width):
    monkeypatch.setenv("COLUMNS", str(width))
    with contextlib.suppress(SystemExit):
        main(words)
    narrow = capsys.readouterr().out
    # an example is a line to be copied, and so is how a command is called
    folded, _, examples = narrow.lower().rpartition("example")
    lines = [line for line in folded.splitlines() if line.startswith("  ")]
    assert max(map(len, lines)) <= width
    assert "fmjax" in examples
    monkeypatch.setenv("COLUMNS", "200")
    with contextlib.suppress(SystemExit):
        main(words)
    wide = capsys.readouterr().out
    assert len(wide.splitlines()) < len(narrow.splitlines())
    # a word with a hyphen may have been folded behind it
    assert "".join(wide.split()) == "".join(narrow.split())


def test_no_help_is_kept_of_a_command_that_is_gone():
    assert {path.stem for path in HELP.glob("*.txt")} == {
        "fmjax",
        *(page_of(p).stem for p in PAGES),
    }


def kept() -> dict[str, str]:
    """Command -> its code and sentence, as they are kept."""
    found: dict[str, str] = {}
    for line in ERRORS.read_text().splitlines():
        if line.startswith("$ "):
            command = line.removeprefix("$ ")
            assert command not in found, command
            found[command] = ""
        else:
            found[command] += f"{line}\n"
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with what the commands speak of: pictures, tables, files of weights, presets, a run."""
    folder = tmp_path_factory.mktemp("golden")
    for name, count in (("cat", 3), ("dog", 1)):
        (folder / "pictures" / name).mkdir(parents=True)
        for number in range(count):
            picture = Image.new("RGB", (32, 32), (60 * number, len(name), 9))
            picture.save(folder / "pictures" / name / f"{number}.png")
    (folder / "empty").mkdir()
    (folder / "empty.py").write_text("")
    (folder / "wrong.py").write_text("config = (\n")
    (folder / "table.csv").write_text("picture,weight\na.png,1\n")
    save_file({"a.weight": np.zeros((3, 4), np.float32)}, folder / "other.safetensors")
    whole = (folder / "other.safetensors").read_bytes()
    (folder / "broken.safetensors").write_bytes(whole[:-4])
    with tarfile.open(STORED / "1.tar.xz") as archive:
        archive.extractall(folder / "run", filter="data")
    return folder


@pytest.fixture
def told(place, capsys, monkeypatch):
    """The code and the sentence of a command in that folder."""
    monkeypatch.chdir(place)
    # a preset's rows stay known to the process that has run it
    monkeypatch.setattr(names, "_registered", [])

    def run(command: str) -> str:
        code = main(shlex.split(command)[1:])
        text = capsys.readouterr().err.removeprefix("fmjax: ")
        return f"{code}: {text.replace(str(place), 'HERE').strip()}\n"

    return run


@pytest.mark.parametrize("command", kept())
def test_a_mistake_is_answered_with_the_sentence_that_is_kept(command, told, request):
    text = told(command)
    if request.config.getoption("write_golden"):
        rows = kept() | {command: text}
        ERRORS.write_text("".join(f"$ {each}\n{answer}" for each, answer in rows.items()))
    assert text == kept()[command]
    # a code of a user's mistake, and one sentence, however long
    code, _, sentence = text.partition(": ")
    assert int(code) in EXIT_CODES
    assert sentence.strip()
    assert "Traceback" not in sentence


def test_nothing_is_half_done_by_mistakes(place):
    # runs behind all of them: a file that one had left would be here
    made = {path.name for path in place.iterdir()} - {"runs"}
    assert made == THERE
    assert list(place.glob("runs/*/checkpoints/*")) == []


def test_enough_mistakes_are_kept():
    assert len(kept()) >= 60
    # of every command that takes anything
    spoken = {command.split()[1] for command in kept()}
    assert set(COMMANDS) - spoken <= {"doctor"}
