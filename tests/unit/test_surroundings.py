"""What a command sets in its environment for jax, and that a user's word stands."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from fmjax.cli import main
from fmjax.commands.surroundings import SAID, prepare


def test_a_command_takes_nearly_all_of_a_gpus_memory(monkeypatch, capsys):
    for name in SAID:
        # set and deleted, so that what the command sets is undone as well
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert main(["models", "demo*"]) == 0
    assert {name: os.environ.get(name) for name in SAID} == {
        **dict.fromkeys(SAID),
        "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92",
    }


@pytest.mark.parametrize("name", SAID)
def test_what_the_user_says_of_memory_stands(name):
    environment = {name: "false", "HOME": "/"}
    prepare(environment)
    assert environment == {name: "false", "HOME": "/"}


def test_importing_the_package_sets_nothing():
    code = "import os; before = {**os.environ}; import fmjax; fmjax.list_models(); assert before == os.environ"
    subprocess.run([sys.executable, "-c", code], check=True)
