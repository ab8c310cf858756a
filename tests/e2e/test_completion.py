"""Completion: what can come next on a line, and bash itself asking for it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest

from fmjax.cli import main
from fmjax.commands import COMMANDS
from fmjax.commands.completing import SCRIPTS, candidates, flags_of
from fmjax.config.presets import presets
from fmjax.names import list_models


def every() -> list[list[str]]:
    """Every command, and every verb of those that have some."""
    return [
        [name, *filter(None, [verb])] for name, c in COMMANDS.items() for verb in c.verbs or [""]
    ]


@pytest.mark.parametrize("command", every(), ids=" ".join)
def test_every_flag_says_what_it_is_for_and_no_two_the_same(command):
    flags = list(flags_of(COMMANDS[command[0]], *command[1:]))
    assert flags[0].names == ("-h", "--help")
    said = [flag.says.partition("(default")[0] for flag in flags]
    assert [flag.names for flag, text in zip(flags, said, strict=True) if not text] == []
    assert len(set(said)) == len(said), sorted(said)


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["fin"], ["finetune"]),
        (["ckpt", "p"], ["prune"]),
        (["info", "ViT-B-16.openai"], ["ViT-B-16.openai"]),
        (["finetune", "quick"], ["quickstart"]),
        (["knn", "demo_vit_ti4", "--data.max-b"], ["--data.max-bad", "--data.max-bad-share"]),
        (["knn", "x", "--data.max-bad", "3", "--data.max-bad"], ["--data.max-bad-share"]),
        (["knn", "x", "--model.dtype", ""], ["auto", "float32", "bfloat16", "float16"]),
        (["knn", "x", "--model.resample", "bicubic_a"], ["bicubic_antialias"]),
        (["models", "dino", "--sort", "par"], ["parameters", "parity"]),
        (["data", "check", "--pa"], ["--page"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        # a file's name, for which the shell has its own way
        (["eval", ""], []),
        (["knn", "x", "--batch-size", ""], []),
        (["info", "ViT-B-16", ""], []),
        (["nothing", ""], []),
    ],
)
def test_what_can_come_next(words, found):
    assert candidates(words, COMMANDS) == found


def test_names_are_those_that_a_command_takes():
    assert candidates([], COMMANDS) == [*COMMANDS, "--help", "--version"]
    assert set(candidates(["finetune", ""], COMMANDS)) > set(presets())
    assert candidates(["download", "ViT-B-16", ""], COMMANDS) == list_models(pretrained=True)


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """What bash offers where the cursor is at the end of a line."""
    # the command as it is installed, with this very package
    folder = tmp_path_factory.mktemp("bin")
    command = folder / "fmjax"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m fmjax.cli "$@"\n')
    command.chmod(0o755)
    paths = os.pathsep.join(filter(None, [os.getcwd(), os.environ.get("PYTHONPATH")]))
    bash = shutil.which("bash")
    assert bash

    def offered(line: str) -> list[str]:
        script = (
            f'PATH="{folder}:$PATH"; eval "$(fmjax completion bash)"; COMP_LINE="$1"; COMP_POINT=${{#1}}; '
            f'_fmjax; printf "%s\\n" "${{COMPREPLY[@]}}"'
        )
        done = subprocess.run(
            [bash, "-c", script, "bash", line],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": paths},
        )
        assert done.stderr == ""
        return done.stdout.split()

    return offered


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("fmjax mod", ["models"]),
        ("fmjax info ViT-B-16.open", ["ViT-B-16.openai"]),
        ("fmjax ckpt ", ["ls", "verify", "prune", "export", "--help"]),
        ("fmjax finetune quickstart --recipe.warmup-s", ["--recipe.warmup-steps"]),
        ("fmjax eval runs/", []),
    ],
)
def test_bash_offers_what_can_come_next(typed, line, found):
    assert typed(line) == found


def test_every_shell_has_a_script_and_another_is_one_sentence(capsys):
    for shell in SCRIPTS:
        assert main(["completion", shell]) == 0
        assert "completion words" in capsys.readouterr().out
    assert main(["completion", "zhs"]) == 2
    assert capsys.readouterr().err == "fmjax: no completion for 'zhs'; did you mean zsh?\n"
