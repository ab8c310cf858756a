"""The predictions that a run keeps: as they were, within bounds, and read like a file from a stranger."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

import fmjax
from fmjax.engine import predictions
from fmjax.engine.evaluate import Scores
from fmjax.errors import CheckpointError
from fmjax.targets import check_writable

NAMES = [f"class/{i}.png" for i in range(7)]


def scores(count: int = 5) -> Scores:
    # images 1 and 3 could not be read
    index = np.asarray([0, 2, 4, 5, 6])[:count]
    logits = np.arange(count * 3, dtype=np.float32).reshape(count, 3)
    return Scores({"accuracy": 0.8}, {"index": index, "logits": logits}, 2)


def test_what_is_kept_comes_back_with_the_names_of_its_images(tmp_path):
    assert predictions.keep(tmp_path, 12, scores(), NAMES) == ""
    found = predictions.read(tmp_path)
    assert found is not None
    assert np.array_equal(found.rows["logits"], scores().rows["logits"])
    assert list(found.names) == [NAMES[i] for i in (0, 2, 4, 5, 6)]
    about = found.about
    assert (about.step, about.images, about.unreadable) == (12, 5, 2)
    assert about.scores == {"accuracy": 0.8}
    assert about.environment["devices"] == "8 x cpu"
    assert [path.name for path in tmp_path.iterdir()] == [predictions.PREDICTIONS]


def test_the_version_is_that_of_the_code_that_ran(monkeypatch):
    # a checkout that was updated: what was noted at its installation is of an older version
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.0.1")
    assert predictions.environment()["fmjax"] == fmjax.__version__
    assert predictions.environment()["numpy"] == "0.0.1"


def test_a_name_that_is_no_text_comes_back(tmp_path):
    names = [b"\xff.png".decode("utf-8", "surrogateescape"), *NAMES[1:]]
    assert predictions.keep(tmp_path, 1, scores(), names) == ""
    found = predictions.read(tmp_path)
    assert found is not None
    assert found.names[0] == names[0]


def test_many_images_are_thinned_evenly(tmp_path, monkeypatch):
    # of three rows of 20 bytes each
    monkeypatch.setattr(predictions, "MAX_BYTES", 3 * (8 + 12))
    assert predictions.keep(tmp_path, 1, scores(), NAMES) == ""
    found = predictions.read(tmp_path)
    assert found is not None
    assert list(found.names) == [NAMES[i] for i in (0, 4, 6)]
    assert found.about.images == 5


def test_a_run_without_any_has_none(tmp_path):
    assert predictions.read(tmp_path) is None


def test_a_disk_that_takes_none_is_a_sentence(tmp_path):
    (tmp_path / f"{predictions.PREDICTIONS}.part").mkdir()
    said = predictions.keep(tmp_path, 3, scores(), NAMES)
    assert said.startswith("the predictions of step 3 are not kept: ")
    assert not (tmp_path / predictions.PREDICTIONS).exists()
    check_writable(tmp_path)


def rewritten(path, **changes) -> None:
    with np.load(path) as arrays:
        old = dict(arrays)
    np.savez(path, **(old | changes))


def about(**changes) -> np.ndarray:
    whole = predictions.About(format=1, step=1, images=5, unreadable=0, scores={}, environment={})
    return np.frombuffer(json.dumps(asdict(replace(whole, **changes))).encode(), np.uint8)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"about": about(format=2)}, "it has the format 2, and 1 is read"),
        ({"about": about(images=4)}, "it has 5 rows of 4 images"),
        ({"about": about(scores={"accuracy": "high"})}, "its scores are no numbers"),
        ({"about": np.frombuffer(b'{"format": 1}', np.uint8)}, "About lacks the field 'step'"),
        ({"about": np.frombuffer(b"[[", np.uint8)}, "Expecting value"),
        ({"rows/logits": np.zeros((4, 3))}, "it has 'logits' of (4, 3) for 5 images"),
        ({"logits": np.zeros(5)}, "it has an array 'logits', which is no row of a task"),
        ({"name_ends": np.asarray([9, 3, 4, 5, 60])}, "its names do not fit together"),
        ({"name_ends": np.zeros(5)}, "its names are of another kind"),
        ({"rows/logits": np.asarray([object()] * 5)}, "'rows/logits.npy'"),
    ],
)
def test_a_damaged_file_is_one_sentence(tmp_path, changes, said):
    predictions.keep(tmp_path, 1, scores(), NAMES)
    rewritten(tmp_path / predictions.PREDICTIONS, **changes)
    with pytest.raises(CheckpointError) as error:
        predictions.read(tmp_path)
    assert said in str(error.value)
    assert str(error.value).endswith("; `fmjax eval RUN` makes it anew")


@pytest.mark.parametrize("kind", ["cut", "flipped", "no zip", "too long"])
def test_other_bytes_are_one_sentence(tmp_path, monkeypatch, kind):
    predictions.keep(tmp_path, 1, scores(), NAMES)
    path = tmp_path / predictions.PREDICTIONS
    data = bytearray(path.read_bytes())
    place = data.index(np.float32(7).tobytes())
    data[place] ^= 1
    new = {"cut": data[:-40], "flipped": data, "no zip": b"x" * 100, "too long": data}[kind]
    path.write_bytes(new)
    if kind == "too long":
        monkeypatch.setattr(predictions, "MAX_READ", 10)
    with pytest.raises(CheckpointError, match="is damaged: "):
        predictions.read(tmp_path)
