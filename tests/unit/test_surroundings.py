"""What a command sets in its environment for jax, and that a user's word stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from fmjax.cli import main
from fmjax.commands.surroundings import MEMORY, OWN, SAID, prepare
from fmjax.programs import doctor, machine


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


def test_the_doctor_tells_what_a_command_has_set_from_what_the_user_has(monkeypatch, capsys):
    facts = machine.Facts(
        fmjax="1",
        python="3",
        system="",
        packages={},
        devices=machine.Devices(platform="cpu"),
        model_cache=machine.Place(path="."),
        hub_cache=machine.Place(path="."),
        cores=1,
    )

    def gathered(*, offline: bool) -> machine.Facts:
        return replace(facts, environment=machine.steering(os.environ))

    monkeypatch.setattr(doctor, "gathered", gathered)
    monkeypatch.setattr(doctor, "findings", lambda facts: [])
    for name in (OWN, *SAID):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert f"{MEMORY[0]}=0.92 (by fmjax)" in shown
    assert OWN not in shown
    # another command within it has not set it either
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["facts"]["own"] == [MEMORY[0]]
    monkeypatch.delenv(OWN)
    monkeypatch.setenv(MEMORY[0], "0.92")
    assert main(["doctor"]) == 0
    assert "by fmjax" not in capsys.readouterr().out


def test_importing_the_package_sets_nothing():
    code = "import os; before = {**os.environ}; import fmjax; fmjax.list_models(); assert before == os.environ"
    subprocess.run([sys.executable, "-c", code], check=True)
