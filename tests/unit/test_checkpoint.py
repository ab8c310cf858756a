"""A step on disk, whole and damaged."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.engine import manifest, steps
from fmjax.engine.checkpoint import Checkpoints, Damaged, check_room, restore, restore_params
from fmjax.engine.guard import Guard, fresh
from fmjax.engine.state import State
from fmjax.errors import CheckpointError


def state(params: dict) -> State:
    return State(
        step=jnp.array(1), params=params, ema={}, opt={"mean": jnp.ones((8, 8))}, key=jnp.arange(2)
    )


GUARD = Guard(skipped=jnp.array(7), row=jnp.array(2), scale=jnp.array(4.0), good=jnp.array(30))
STATE = replace(state({"a": {"kernel": jnp.arange(64.0).reshape(8, 8)}}), guard=GUARD)
# name: (files of the step, what is done with their bytes, what is said)
DAMAGE = {
    "position gone": ("data/metadata", None, "data/metadata is missing"),
    "position cut": ("data/metadata", lambda data: data[:-2], "data/metadata is damaged"),
    "record cut": ("params/_METADATA", lambda data: data[:40], "params/_METADATA is damaged"),
    "record of nothing": ("opt/_METADATA", lambda _: b"{}", "its records lack 'tree_metadata'"),
    "shapes cut": (
        "params/array_metadatas/*",
        lambda data: data[:40],
        "params/array_metadatas/process_0 is damaged",
    ),
    "index gone": ("params/manifest.ocdbt", None, "the arrays in params are damaged or missing"),
    "arrays zeroed": (
        "opt/d/*",
        lambda data: bytes(len(data)),
        "the arrays in opt are damaged or missing",
    ),
    "arrays cut": (
        "random/d/*",
        lambda data: data[:10],
        "the arrays in random are damaged or missing",
    ),
}


def write(run, state, *steps: int) -> None:
    """Saves a state as steps of a run; as 5 where none is said."""
    checkpoints = Checkpoints(run)
    for step in steps or (5,):
        checkpoints.save(step, state, {"position": 40})
    checkpoints.close()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with one step."""
    run = tmp_path_factory.mktemp("run")
    write(run, STATE)
    return run


def test_a_step_of_an_older_run_has_no_guard_and_gets_a_fresh_one(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    step = run / "checkpoints" / "5"
    shutil.rmtree(step / "guard")
    with pytest.raises(Damaged, match="guard/_METADATA is missing"):
        restore(run, 5, STATE)
    (step / manifest.MANIFEST).unlink()
    found, data = restore(run, 5, STATE)
    jax.tree.map(np.testing.assert_array_equal, found, replace(STATE, guard=fresh()))
    assert data == {"position": 40}


def test_what_was_saved_comes_back(saved):
    found, data = restore(saved, 5, STATE)
    jax.tree.map(np.testing.assert_array_equal, found, STATE)
    assert data == {"position": 40}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_step_without_a_list_of_files_is_told_by_its_file(saved, tmp_path, name):
    pattern, change, said = DAMAGE[name]
    run = shutil.copytree(saved, tmp_path / "run")
    (run / "checkpoints" / "5" / manifest.MANIFEST).unlink()
    files = list((run / "checkpoints" / "5").glob(pattern))
    assert files
    for file in files:
        data = file.read_bytes()
        file.unlink()
        if change is not None:
            file.write_bytes(change(data))
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        restore(run, 5, STATE)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith("step 5 in ")
    assert sentence.endswith("start over with --fresh")


def test_a_step_of_another_model_is_told(saved):
    other = state({"b": STATE.params["a"]})
    with pytest.raises(
        CheckpointError, match="its arrays are not those of this run's model and optimiser"
    ):
        restore(saved, 5, other)


# Restores a step whose arrays are cut, many times: what orbax leaves behind must not speak
MANY = """
import sys
from pathlib import Path
from fmjax.engine import manifest, steps
from fmjax.engine.checkpoint import Checkpoints, Damaged, check_room, restore, restore_params
from fmjax.errors import CheckpointError
from tests.unit.test_checkpoint import LARGE
for _ in range(10):
    try:
        restore(Path(sys.argv[1]), 5, LARGE)
    except CheckpointError as error:
        print(error)
"""
# Arrays too large to lie in the index, as those of a real run do
LARGE = state({f"a{n}": {"kernel": np.arange(4096.0).reshape(64, 64)} for n in range(8)})


def test_many_damaged_steps_print_no_traceback(tmp_path):
    run = tmp_path / "run"
    write(run, LARGE)
    # a step of an older version has no list of its files, so that Orbax meets the damage
    (run / "checkpoints" / "5" / manifest.MANIFEST).unlink()
    for file in (run / "checkpoints" / "5" / "params" / "ocdbt.process_0" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    found = subprocess.run([sys.executable, "-c", MANY, str(run)], capture_output=True, text=True)
    assert found.stdout.count("the arrays in params are damaged or missing") == 10
    assert found.stderr == ""


# What is done to a file -> its bytes afterwards; None takes it away
HARM = {
    "gone": lambda data: None,
    "cut": lambda data: data[:-1],
    "empty": lambda data: b"",
    **{
        f"flip {n}": lambda data, n=n: bytes(
            byte ^ ((1 << (n * 5 % 8)) * (place == n * len(data) // 12))
            for place, byte in enumerate(data)
        )
        for n in range(12)
    },
}
NOT_NEEDED = ("_CHECKPOINT_METADATA", "commit_success.txt")  # of a step, by nobody


@pytest.mark.parametrize("harm", HARM)
def test_every_harm_to_every_file_of_a_step_is_found(saved, tmp_path, harm):
    run = shutil.copytree(saved, tmp_path / "run")
    step = run / "checkpoints" / "5"
    files = sorted(path for path in step.rglob("*") if path.is_file())
    assert len(files) > 20
    for file in files:
        data = file.read_bytes()
        harmed = HARM[harm](data)
        if harmed == data:
            continue  # an empty file cannot be cut
        file.unlink()
        if harmed is not None:
            file.write_bytes(harmed)
        name = file.relative_to(step).as_posix()
        if name in NOT_NEEDED or (name == manifest.MANIFEST and harmed is None):
            # the numbers are right, or it is said; never other ones
            found, _ = restore(run, 5, STATE)
            jax.tree.map(np.testing.assert_array_equal, found, STATE)
        else:
            with pytest.raises(Damaged, match=f"step 5 in .*{re.escape(name)} "):
                restore(run, 5, STATE)
        file.write_bytes(data)


def test_files_of_another_step_are_found(tmp_path):
    run = tmp_path / "run"
    other = state({"a": {"kernel": jnp.ones((8, 8))}})
    write(run, other, 4)
    write(run, STATE, 5)
    shutil.rmtree(run / "checkpoints" / "5" / "params")
    shutil.copytree(run / "checkpoints" / "4" / "params", run / "checkpoints" / "5" / "params")
    with pytest.raises(Damaged, match="params/"):
        restore(run, 5, STATE)


def test_an_array_that_was_written_wrong_is_found_by_its_own_digest(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    write(tmp_path / "other", state({"a": {"kernel": jnp.ones((8, 8))}}))
    # the list of files agrees, as if memory had been wrong when they were written
    step = run / "checkpoints" / "5"
    shutil.rmtree(step / "params")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "5" / "params", step / "params")
    manifest.write(step)
    with pytest.raises(Damaged, match=r"the array params\.a\.kernel is not the one that was saved"):
        restore(run, 5, STATE)
    with pytest.raises(Damaged, match=r"params\.a\.kernel"):
        restore_params(run, 5, STATE.params)


def test_a_step_that_is_killed_before_its_name_is_no_step(tmp_path):
    run = tmp_path / "run"
    write(run, STATE, 4)
    half = run / "checkpoints" / "5.orbax-checkpoint-tmp" / "params"
    half.mkdir(parents=True)
    (half / "x").write_bytes(b"half")
    assert steps.committed(run) == [4]
    write(run, STATE, 6)
    assert not half.exists()


def test_the_newest_and_the_best_steps_stay(tmp_path):
    run = tmp_path / "run"
    checkpoints = Checkpoints(run, keep=2)
    for step in range(1, 7):
        checkpoints.save(step, STATE, {"position": step})
        if step == 2:
            checkpoints.best = 2
    checkpoints.close()
    assert steps.committed(run) == [2, 5, 6]


def test_the_best_step_is_the_later_one_of_equals():
    rows = [
        {"step": 1, "val_loss": 2.0},
        {"step": 2, "val_loss": 1.0},
        {"step": 3, "loss": 0.1},
        {"step": 4, "val_loss": 1.0},
        {"step": 5, "val_loss": 1.5},
    ]
    assert steps.best(rows, "loss", highest=False) == 4
    assert steps.best(rows, "loss", highest=True) == 1
    assert steps.best(rows, "accuracy", highest=True) is None


def test_a_save_that_fails_is_one_sentence_and_leaves_the_older_step(tmp_path):
    run = tmp_path / "run"
    found = subprocess.run(
        [sys.executable, "-c", TOO_LARGE, str(run)], capture_output=True, text=True
    )
    assert found.stderr == ""
    sentence = found.stdout.strip()
    assert "\n" not in sentence
    assert sentence.startswith(f"step 6 could not be saved in {run}: File too large (")
    assert "step 5 is whole; make room and run the same command to go on" in sentence
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["5"]
    restore(run, 5, STATE)


# Saves a step whose files may not be as large as they are, while the run goes on
TOO_LARGE = """
import resource, sys, time
from pathlib import Path
from fmjax.engine.checkpoint import Checkpoints
from fmjax.errors import CheckpointError
from tests.unit.test_checkpoint import LARGE, STATE
checkpoints = Checkpoints(Path(sys.argv[1]))
checkpoints.save(5, STATE, {"position": 40})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, 4_000))  # less than any one of its arrays takes
checkpoints.save(6, LARGE, {"position": 40})
try:
    for _ in range(1_000):
        checkpoints.check()
        time.sleep(0.02)
except CheckpointError as error:
    print(error)
"""


def test_a_disk_without_room_is_refused_before_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=1_500_000_000))
    check_room(tmp_path / "runs" / "mine", 750_000_000)
    with pytest.raises(
        CheckpointError, match=r"has 1\.5 GB free, .* 751 MB a checkpoint needs 1\.5 GB"
    ):
        check_room(tmp_path / "runs" / "mine", 751_000_000)


def test_a_step_of_a_newer_format_is_told(saved, tmp_path):
    run = shutil.copytree(saved, tmp_path / "run")
    record = run / "checkpoints" / "5" / "data" / "metadata"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"format": 2}))
    manifest.write(run / "checkpoints" / "5")
    with pytest.raises(CheckpointError, match=r"has format 2, .* up to 1; upgrade fmjax") as caught:
        restore(run, 5, STATE)
    assert not isinstance(caught.value, Damaged)  # an older step is no remedy
