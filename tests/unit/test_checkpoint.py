"""A step on disk, whole and damaged."""

import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.engine.checkpoint import Checkpoints
from fmjax.engine.state import State
from fmjax.errors import CheckpointError


def state(params: dict) -> State:
    return State(
        step=jnp.array(1), params=params, ema={}, opt={"mean": jnp.ones((8, 8))}, key=jnp.arange(2)
    )


STATE = state({"a": {"kernel": jnp.arange(64.0).reshape(8, 8)}})
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


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A run with one step."""
    run = tmp_path_factory.mktemp("run")
    checkpoints = Checkpoints(run)
    checkpoints.save(5, STATE, {"position": 40})
    checkpoints.wait()
    checkpoints.close()
    return run


def test_what_was_saved_comes_back(saved):
    found, data = Checkpoints(saved).restore(5, STATE)
    jax.tree.map(np.testing.assert_array_equal, found, STATE)
    assert data == {"position": 40}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_step_is_told_by_its_file(saved, tmp_path, name):
    pattern, change, said = DAMAGE[name]
    run = shutil.copytree(saved, tmp_path / "run")
    files = list((run / "checkpoints" / "5").glob(pattern))
    assert files
    for file in files:
        data = file.read_bytes()
        file.unlink()
        if change is not None:
            file.write_bytes(change(data))
    with pytest.raises(CheckpointError, match=re.escape(said)) as caught:
        Checkpoints(run).restore(5, STATE)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith("step 5 in ")
    assert sentence.endswith("start over with --fresh")


def test_a_step_of_another_model_is_told(saved):
    other = state({"b": STATE.params["a"]})
    with pytest.raises(
        CheckpointError, match="its arrays are not those of this run's model and optimiser"
    ):
        Checkpoints(saved).restore(5, other)


# Restores a step whose arrays are cut, many times: what orbax leaves behind must not speak
MANY = """
import sys
from pathlib import Path
from fmjax.engine.checkpoint import Checkpoints
from fmjax.errors import CheckpointError
from tests.unit.test_checkpoint import LARGE
for _ in range(10):
    try:
        Checkpoints(Path(sys.argv[1])).restore(5, LARGE)
    except CheckpointError as error:
        print(error)
"""
# Arrays too large to lie in the index, as those of a real run do
LARGE = state({f"a{n}": {"kernel": np.arange(4096.0).reshape(64, 64)} for n in range(8)})


def test_many_damaged_steps_print_no_traceback(tmp_path):
    run = tmp_path / "run"
    checkpoints = Checkpoints(run)
    checkpoints.save(5, LARGE, {"position": 40})
    checkpoints.wait()
    checkpoints.close()
    for file in (run / "checkpoints" / "5" / "params" / "ocdbt.process_0" / "d").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    found = subprocess.run([sys.executable, "-c", MANY, str(run)], capture_output=True, text=True)
    assert found.stdout.count("the arrays in params are damaged or missing") == 10
    assert found.stderr == ""
