"""What a wrong file is told to be: quickly, by at most three names, and only by nearer ones."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import fmjax
from fmjax import names
from fmjax.cli import main
from fmjax.errors import CheckpointError, UsageError
from fmjax.models.build import param_shapes
from fmjax.store.locate import package_file
from fmjax.weights import identify
from fmjax.weights.load import read
from tests.support.checkpoints import random_file, save, small
from weights_conversion import MisfitError, get_dialect
from weights_conversion.readers import open_checkpoint

DEMO = "demo_vit_ti4.fashion_mnist"


@pytest.fixture
def demo() -> dict[str, np.ndarray]:
    source = fmjax.get_weights(DEMO).sources[0]
    return load_file(package_file(source.location))


def report(path: Path, name: str, seconds: float = 1.0) -> str:
    """The refusal of a file; of no more than a second of processor time once the named model is traced."""
    param_shapes(fmjax.get_spec(name))
    start = time.process_time()
    with pytest.raises(MisfitError) as caught:
        read(name, checkpoint=path)
    assert time.process_time() - start < seconds
    return str(caught.value)


@pytest.mark.parametrize("name", fmjax.list_models())
def test_the_telling_shapes_are_those_of_the_model(name):
    spec = fmjax.get_spec(name)
    shapes = param_shapes(spec)
    assert identify.telling_shapes(spec) == {
        path: shapes[path] for path in identify.TELLING if path in shapes
    }


def test_one_foreign_tensor_is_refused_at_once_and_no_other_model_is_offered(tmp_path, demo):
    save_file(demo | {"strange": np.zeros(3, np.float32)}, tmp_path / "x.safetensors")
    text = report(tmp_path / "x.safetensors", DEMO)
    assert text.splitlines()[0].endswith("1 misfits, nothing was loaded into demo_vit_ti4")
    assert "closest" not in text


def test_one_missing_tensor_is_refused_at_once(tmp_path, demo):
    demo.pop(next(key for key in demo if key.endswith("norm.bias")))
    save_file(demo, tmp_path / "x.safetensors")
    assert "closest" not in report(tmp_path / "x.safetensors", DEMO)


def test_at_most_three_names_are_offered(tmp_path, monkeypatch):
    spec, asked = small("ViT-B-16"), small("ViT-B-32")
    file = open_checkpoint(save(tmp_path / "x.safetensors", random_file(spec, "open_clip")))
    monkeypatch.setattr(names, "list_models", lambda: ["a", "b", "c", "d"])
    monkeypatch.setattr(names, "get_spec", lambda name: spec)
    text = identify.closest(file, get_dialect("open_clip"), asked)
    assert text == " into ViT-B-32; the closest model is a or b or c, with 0 misfits"


def test_a_published_file_is_told_by_its_tensors(demo):
    source = fmjax.get_weights(DEMO).sources[0]
    model = fmjax.load(f"local-dir:{package_file(source.location)}")
    assert model.spec.name == "demo_vit_ti4"


def test_a_quantised_file_that_is_told_by_its_tensors_is_refused_as_one(tmp_path, demo):
    key = next(key for key in demo if key.endswith("mlp.fc1.weight"))
    save_file(demo | {key: demo[key].astype(np.int8)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="is quantised"):
        fmjax.load(f"local-dir:{tmp_path / 'x.safetensors'}")


def test_a_bias_without_an_axis_is_a_misfit(tmp_path, demo):
    save_file(demo | {"head.bias": np.array(0, np.float32)}, tmp_path / "x.safetensors")
    assert "'head.bias'" in report(tmp_path / "x.safetensors", DEMO)


def test_the_words_of_a_converted_file_are_checked_and_quoted(tmp_path, demo):
    save_file(demo, tmp_path / "x.safetensors")
    main(["convert", DEMO, str(tmp_path / "x.safetensors"), str(tmp_path / "ours.safetensors")])
    ours = load_file(tmp_path / "ours.safetensors")
    headed = ours | {"classifier.bias": np.zeros(3, np.float32)}
    save_file(headed, tmp_path / "y.safetensors", {"format": "fmjax", "classifier": "\x1b[2J"})
    with pytest.raises(CheckpointError, match=r"over '\\x1b\[2J'; it must be one of pool, cls"):
        read(DEMO, checkpoint=tmp_path / "y.safetensors")
    save_file(ours, tmp_path / "z.safetensors", {"format": "fmjax", "model": "\x1b[2J.x"})
    with pytest.raises(UsageError, match=r"unknown model '\\x1b\[2J\.x'"):
        read(DEMO, checkpoint=tmp_path / "z.safetensors")
