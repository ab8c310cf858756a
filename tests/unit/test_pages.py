"""The documentation: every page has its place, every link holds, and every command is one that fmjax understands."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
from pathlib import Path

import pytest

import fmjax
from fmjax import names
from fmjax.cli import main
from fmjax.commands import COMMANDS
from fmjax.config.tasks import SHIPPED
from fmjax.programs import flags
from tests.support.guide import DOCS, PAGES, ROOT, blocks, commands, nav, said_in_passing

LINKED = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", ROOT / "CHANGELOG.md"]
# the presets that pages speak of without showing them
PRESETS = ("angle.py", "my_task.py", "cats.py", "preset.py")
TASK = next(b.text for b in blocks(DOCS / "adding_a_task.md") if b.language == "python")


def anchors(page: Path) -> set[str]:
    """The places of a page that a link can name, as the site and the hosts of repositories write them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.M | re.S)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    plain = [re.sub(r"[^\w\s-]", "", title).strip().lower() for title in titles]
    return {re.sub(r"[\s]+", "-", title) for title in plain}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: page.stem)
def test_every_link_of_a_page_holds(page):
    text = re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.M | re.S)
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert broken == []


def test_a_page_of_the_site_links_to_nothing_outside_of_it():
    # the site has the pages of docs/ alone; where it would lead nowhere, a checkout's page would not
    outside = re.compile(r"\]\((\.\./[^)]*)\)")
    assert {page.name: outside.findall(page.read_text()) for page in DOCS.glob("*.md")} == {
        page.name: [] for page in DOCS.glob("*.md")
    }


def test_every_page_has_its_place_in_the_site():
    assert sorted(nav()) == sorted(page.name for page in DOCS.glob("*.md"))


def test_everything_public_is_in_the_reference():
    named = re.findall(r"^::: fmjax\.(\w+)$", (DOCS / "api.md").read_text(), re.M)
    assert sorted(named) == sorted(set(fmjax.__all__) - {"__version__"})


# the backbone that a page makes
MADE = {"my_vit.v1"}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_model_and_function_that_a_page_speaks_of_is_there(page):
    text = page.read_text()
    called = set(re.findall(r"\bfmjax\.(\w+)\(", text))
    assert {name for name in called if not hasattr(fmjax, name)} == set()
    named = re.findall(r"\bfmjax\.(?:load|create|get_\w+|preprocess_config)\(\s*\"([^\"]+)\"", text)
    for name in set(named) - MADE:
        assert names.resolve(name)


class Understood(BaseException):
    """A command has come to the end of its flags; none of its work is done."""


@pytest.fixture
def understands(monkeypatch, tmp_path):
    """Whether a command's words are all words that it has."""
    real = flags.parsed

    def parsed(kind, args, **settings):
        # what tyro would call is what does the work
        if not inspect.isclass(kind):

            @functools.wraps(kind)
            def stopped(*_, **__):
                raise Understood

            real(stopped, args, **settings)
        real(kind, args, **settings)
        raise Understood

    for module in ("parsing", "data", "checkpoints"):
        monkeypatch.setattr(f"fmjax.commands.{module}.parsed", parsed)
    for name in PRESETS:
        (tmp_path / name).write_text(TASK)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    monkeypatch.chdir(tmp_path)

    def understood(words: list[str]) -> bool:
        try:
            main(words)
        except Understood:
            return True
        except SystemExit as stopped:
            return stopped.code == 0
        return False

    return understood


# they have no flags whose reading could be stopped at, and do nothing but print
PRINTS = {"completion"}


def is_form(words: list[str]) -> bool:
    """Whether a line says how a command looks rather than being one: RUN|FILE, or the bare name of a command."""
    verbs = COMMANDS[words[0]].verbs if words[0] in COMMANDS else ()
    return set(words[1:]) <= set(verbs) or any("|" in word for word in words)


# what pages write where any of a kind will do
STANDS_FOR = {
    "PRESET": "quickstart",
    "NAME": "bitfit",
    "N": "3",
    "C": "0.1",
    "$JOB_COMPLETION_INDEX": "0",
}
# what comes before all flags of these is left out where a sentence is about a flag
IN_ITS_PLACE = ("--backbones",)
OF_SOMETHING = ("finetune", "probe", "knn", "embed", "eval", "report")


def filled(words: list[str]) -> list[str]:
    """A command as it could be typed: `finetune ... --no-report` is said of any preset."""
    words = [STANDS_FOR.get(word, word) for word in words if word != "..."]
    lacks = words[0] in OF_SOMETHING and words[1].startswith("-") and words[1] not in IN_ITS_PLACE
    return [words[0], *(["quickstart"] * lacks), *words[1:]]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_command_of_a_page_is_understood(page, understands, capsys):
    found = [words for block in blocks(page) for words in commands(block)]
    found += said_in_passing(page)
    wrong = []
    for words in found:
        if is_form(words) or words[0] in PRINTS:
            assert words[0] in {*COMMANDS, "--help", "--version"}
        elif not understands(filled(words)):
            wrong.append((" ".join(words), capsys.readouterr().err[-300:]))
    assert wrong == []


# launchers' own, those of timm's script that training was compared with, big_vision's, and those of a benchmark
OTHERS = {
    "scaling.md": {"--map-by", "--ntasks", "--ntasks-per-node"},
    "from_timm.md": {"--layer-decay"},
    "from_big_vision.md": {"--config", "--config.lr", "--workdir"},
    "fine_tuning.md": {"--logdir"},
    "serving.md": {"--port", "--shm-size"},
    "speed_calls.md": {"--after"},
}
COMPARED = {"parity.md"}


def known_flags() -> set[str]:
    """Those that the helps show, and those of tasks that the preset of the example has not."""
    helps = "".join(page.read_text() for page in (ROOT / "tests/golden/help").glob("*.txt"))
    tasks = [field.name for task in SHIPPED.values() for field in dataclasses.fields(task)]
    return {*re.findall(r"--[a-z][\w.-]*", helps)} | {
        f"--task.{name.replace('_', '-')}" for name in tasks
    }


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in COMPARED], ids=lambda p: p.stem)
def test_every_flag_that_a_page_speaks_of_is_there(page):
    codes = " ".join(re.findall(r"`([^`\n]+)`", page.read_text()))
    said = {flag.rstrip(".") for flag in re.findall(r"(?<![\w-])--[a-z][\w.-]*", codes)}
    known = known_flags()
    heads = {flag.rpartition(".")[0] for flag in known}
    assert said - known - heads - OTHERS.get(page.name, set()) == set()


def test_a_word_that_no_command_has_is_seen(understands):
    assert understands(["finetune", "quickstart", "--steps", "3"])
    assert not understands(["finetune", "quickstart", "--stps", "3"])
    assert not understands(["knn", "ViT-B-16.openai", "--k", "many"])
    assert not understands(["exprot", "a", "b"])
