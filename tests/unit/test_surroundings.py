"""What a command sets in its environment for jax, and that a user's word stands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from fmjax.cli import main
from fmjax.commands.surroundings import COMPILED, KEPT, MEMORY, OWN, SAID, prepare, processor
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
    environment = {name: "false", COMPILED: ""}
    prepare(environment)
    assert environment == {name: "false", COMPILED: ""}


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


def test_a_command_keeps_what_it_compiles_in_fmjaxs_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FMJAX_CACHE", str(tmp_path))
    environment: dict[str, str] = {}
    prepare(environment, "finetune")
    folder = environment[COMPILED]
    assert folder == str(tmp_path / "compiled" / processor())
    assert {name: environment[name] for name in KEPT} == KEPT
    # nothing is made before there is something to keep
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("folder", ["", "/elsewhere"])
def test_what_the_user_says_of_compiled_programs_stands(folder):
    environment = {COMPILED: folder, MEMORY[0]: "0.5"}
    prepare(environment, "finetune")
    assert environment == {COMPILED: folder, MEMORY[0]: "0.5"}


def test_a_bound_of_the_users_own_stands():
    environment = dict.fromkeys(KEPT, "7")
    prepare(environment, "finetune")
    assert {name: environment[name] for name in KEPT} == dict.fromkeys(KEPT, "7")


def test_where_compiling_is_timed_nothing_is_taken_from_a_cache():
    environment: dict[str, str] = {}
    prepare(environment, "bench")
    assert COMPILED not in environment


CORES = """processor : {number}
model name : EPYC
cpu MHz : {clock}
flags : fpu avx2{more}

"""


def test_each_kind_of_processor_has_a_folder_of_its_own(tmp_path):
    def named(*, clock: int = 3000, cores: int = 2, more: str = "") -> str:
        file = tmp_path / "cpuinfo"
        rows = (CORES.format(number=number, clock=clock, more=more) for number in range(cores))
        file.write_text("".join(rows))
        return processor(file)

    # neither clocks nor the number of cores decide which instructions there are
    assert named() == named(clock=1000) == named(cores=4)
    assert named() != named(more=" avx512f")
    assert named() != processor(tmp_path / "nothing")


def test_a_second_process_takes_its_programs_from_the_cache(tmp_path):
    code = (
        "import os; from fmjax.commands.surroundings import prepare; prepare(os.environ, 'embed'); "
        "import jax; found = []; "
        "jax.monitoring.register_event_listener(lambda name, **_: found.append(name)); "
        "jax.jit(lambda x: x @ x.T + 1)(jax.numpy.ones((8, 8))); "
        "print(found.count('/jax/compilation_cache/cache_hits'), jax.config.jax_compilation_cache_max_size)"
    )
    # what took no time is kept, too
    environment = {
        **{name: value for name, value in os.environ.items() if name != COMPILED},
        "FMJAX_CACHE": str(tmp_path),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    told = [
        subprocess.run(
            [sys.executable, "-c", code],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        )
        for _ in range(2)
    ]
    hits, bound = zip(*[process.stdout.split() for process in told], strict=True)
    assert set(bound) == {KEPT["JAX_COMPILATION_CACHE_MAX_SIZE"]}
    assert int(hits[0]) == 0 < int(hits[1])
    assert [process.stderr for process in told] == ["", ""]
