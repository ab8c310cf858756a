"""Every command that stands on a page is run, or is in a table that says where it is run, or why it cannot be."""

from __future__ import annotations

import re
import shlex
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from fmjax.cli import main
from fmjax.commands import COMMANDS
from tests.e2e.test_examples import CODES, QUICK
from tests.e2e.test_pages import WHOLE
from tests.support import hub, sets
from tests.support.guide import PAGES, ROOT, blocks, commands, said_in_passing
from tests.support.reader import furnish, prepare_tfds, shrink

# they do something without being told with what; of all others a bare name is no command, but speaks of one
ALONE = {"models", "doctor"}
# what pages write where any of a kind will do, what sentences leave out, and folders that a reader cannot write to
STANDS_FOR = (
    (r"\.\.\.", "finetune_clip_b16"),
    (r"finetune PRESET --with-recipe NAME", "finetune linear_probe --with-recipe bitfit"),
    (r"predict RUN$", "predict RUN images"),
    (r"probe --sweep", "probe MODEL --data.source folder:DIR --sweep"),
    (r"\bNAME --data\.data-dir DIR\b", "small_digits --data.data-dir tfds"),
    (r"hf:OWNER/NAME\b", f"hf:{hub.REPO.removeprefix('datasets/')}"),
    (r":CONFIG@COMMIT\b", f":default@{hub.COMMIT}"),
    (r"masks:DIR\b", "masks:scenes"),
    (r"--data DIR$", "--data photos"),
    (r"\bRUN(?= .*--adapters)", "runs/lora"),
    (r"\bRUN(?= .*hf_dinov2)", "runs/dino"),
    (r"\bRUN\b", "runs/any"),
    (r"\b(NAME|MODEL)\b", "demo_vit_ti4.fashion_mnist"),
    (r"\bFOLDER\b", "images"),
    (r"\bFILE\b(?!\.)", "file.safetensors"),
    (r"\bSPEC\.yaml\b", "spec.yaml"),
    (r"\bpreset\.py\b", "cats.py"),
    (r"--c C --max-iter N\b", "--data.source folder:DIR --c 0.1 --max-iter 9"),
    (r"(?<=[ :])/(?=(data|shared)/)", ""),
)
# what a command is given beside its own words, so that it takes seconds, and that it may be run again
ADDED = {
    "finetune": (*QUICK, "--fresh"),
    "bench": ("--kinds", "forward", "--seconds", "0.05"),
    "embed": ("--force",),
    "export": ("--force",),
    "predict": ("--force",),
    "push": ("--force",),
}
# none of them trains, so that a run need not be short
SHORT = {"--dry-run": ("--fresh",), "--help": ()}
# the runs that the reader has beside those that a page makes, and what each is for
RUNS = {
    "clip": ("finetune", "finetune_clip_b16", "--data.source", "folder:images"),
    "dino": (
        *("finetune", "linear_probe", "--data.source", "folder:images"),
        *("--model.name", "dinov2_vits14.lvd142m", "--task.classifier", "cls_patches"),
    ),
}
# run by another test, with all of these flags, as each takes too long to be run twice
ELSEWHERE = {
    "finetune my_task.py": "tests/e2e/test_own_task.py",
    "average runs/a runs/b --greedy --out runs/soup": "tests/e2e/test_lora_and_averages.py",
    "finetune segment_tune --data.source masks:DIR": "tests/e2e/test_segment.py",
    "finetune finetune_clip_b16 --log tensorboard wandb": "tests/e2e/test_tracking.py",
    "finetune finetune_clip_b16 --profile-steps 10:13": "tests/e2e/test_tracking.py",
}
HOSTS = "several hosts: tests/distributed has processes for them"
# the end of a command, and why it cannot be run
NOT_HERE = {
    "--mesh.fsdp 8 --data.threads 48": "32 devices, by Slurm",
    "--hosts.index '$JOB_COMPLETION_INDEX'": HOSTS,
    "--hosts.count 2 --hosts.index 0": HOSTS,
    "--hosts.count 2 --hosts.index 1": HOSTS,
}


def speaks(words: list[str]) -> bool:
    """Whether words say how a command looks, RUN|FILE, or are the bare name of one."""
    verbs = COMMANDS[words[0]].verbs if words[0] in COMMANDS else ()
    bare = set(words[1:]) <= set(verbs) and words[0] not in ALONE
    return bare or any("|" in word for word in words)


def asked(page: Path) -> list[str]:
    """The commands of a page that tests/e2e/test_pages.py does not run, each once, in its order."""
    found = [] if page.stem in WHOLE else [w for block in blocks(page) for w in commands(block)]
    found += said_in_passing(page)
    return list(dict.fromkeys(shlex.join(words) for words in found if not speaks(words)))


def typed(command: str) -> list[str]:
    """The words of a command as a reader would type it."""
    for written, meant in STANDS_FOR:
        command = re.sub(written, meant, command)
    return shlex.split(command)


def excuses(command: str) -> list[str]:
    """Where else a command is run, or why it cannot be."""
    ends = [why for end, why in NOT_HERE.items() if command.endswith(end)]
    return [*ends, *(where for whole, where in ELSEWHERE.items() if command == whole)]


def kind(command: str) -> str:
    """What two commands are the same by: which run or folder is trained on, or reported, makes no other program."""
    meant = shlex.join(typed(command))
    meant = re.sub(r"^report runs/\S+$", "report RUN", meant)
    if not meant.startswith("finetune"):
        return meant
    return re.sub(r" --(out|data\.source) \S+", "", meant).replace(
        "configs/quickstart.py", "quickstart"
    )


def to_run() -> dict[str, list[str]]:
    """The commands of each page that are run here. What several pages say is run for the first of them, and a table of
    all there is, the README's, comes last."""
    found: dict[str, list[str]] = {}
    seen: set[str] = set()
    for page in sorted(PAGES, key=lambda page: page.name == "README.md"):
        for command in asked(page):
            if kind(command) not in seen and not excuses(command):
                found.setdefault(page.stem, []).append(command)
                seen.add(kind(command))
    return found


@pytest.fixture(scope="module")
def reader(tmp_path_factory, quick_compiler) -> Iterator[Path]:
    """A reader's folder, and large backbones in small."""
    folder = tmp_path_factory.mktemp("reader")
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch, tmp_path_factory.mktemp("published"))
        furnish(folder)
        yield folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


@pytest.fixture
def place(reader, tmp_path, monkeypatch) -> Path:
    """The reader's folder, and room for what the commands of a page make."""
    monkeypatch.chdir(tmp_path)
    for entry in reader.iterdir():
        (tmp_path / entry.name).symlink_to(entry)
    return tmp_path


@pytest.fixture
def reached(monkeypatch) -> Iterator[None]:
    """A hub of the loopback, with one set."""
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with hub.reached(monkeypatch) as server:
        hub.publish(server)
        rows = hub.parquet(sets.images("val"))
        server.publish(hub.REPO, hub.COMMIT, "default/test/0000.parquet", rows)
        yield


def provide(words: list[str], made: Path) -> None:
    """Puts runs that no command of the page has made where a command looks for them, and takes away what stands where
    it is to write."""
    out = [after for word, after in pairwise(words) if word == "--out"]
    if words[0] == "finetune":
        return
    for word in words:
        if word.startswith("runs/") and word not in out and not Path(word).exists():
            shutil.copytree(_made(made, "dino" if "hf_dinov2" in words else "clip"), word)
    for path in map(Path, out):
        path.unlink(missing_ok=True) if path.is_symlink() else shutil.rmtree(path, True)


def _made(made: Path, name: str) -> Path:
    run = made / name
    if not run.exists():
        assert main([*RUNS[name], *QUICK, "--out", str(run)]) == 0
    return run


def given(words: list[str]) -> list[str]:
    """A command with what it is given beside its words."""
    if words[0] == "finetune":
        for flag, added in SHORT.items():
            if flag in words:
                return [*words, *added]
    return [*words, *ADDED.get(words[0], ())]


def run(words: list[str]) -> int:
    try:
        return main(words)
    except SystemExit as stopped:
        # a help ends the program
        assert "--help" in words
        return int(stopped.code or 0)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("page", to_run())
def test_every_command_of_a_page_runs(page, place, made, request, capsys):
    if page == "data":
        request.getfixturevalue("reached")
        prepare_tfds(place / "tfds")
    for command in to_run()[page]:
        words = given(typed(command))
        provide(words, made)
        code = run(words)
        said = capsys.readouterr()
        assert code in CODES.get(words[0], {0}), (command, words, said.err[-500:])
        # as `> cats.py` would do
        if words[0] == "from-tao":
            (place / "cats.py").write_text(said.out)


def test_what_is_not_run_here_is_named_with_its_reason():
    found = [command for page in PAGES for command in asked(page) if excuses(command)]
    assert len(set(found)) == len(ELSEWHERE) + len(NOT_HERE)
    for command, where in ELSEWHERE.items():
        flags = {word for word in shlex.split(command) if word.startswith("--")}
        tested = (ROOT / where).read_text()
        assert all(_used(flag, tested) for flag in flags), (command, where)


def _used(flag: str, tested: str) -> bool:
    """Whether a test gives a flag, as a word of a command or as the field that it sets."""
    name = flag.removeprefix("--").replace("-", "_")
    return any(spelled in tested for spelled in (f'"{flag}"', f"{flag} ", f"{name}="))
