"""What is no weight is refused by every command that reads a file, by its name, and nothing is written."""

from __future__ import annotations

import json

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

import fmjax
from fmjax.errors import CheckpointError
from fmjax.programs.convert import convert, export_file, verify
from tests.support.checkpoints import random_file, save, small
from weights_conversion.tensors import finite, transfer_finite

NAME, KEY = "ViT-B-16.openai", "visual.transformer.resblocks.1.mlp.c_fc.weight"
BAD = {
    "int8": (
        lambda array: (array * 40).astype(np.int8),
        rf"is quantised: it stores '{KEY}' as int8",
    ),
    "int64": (lambda array: array.astype(np.int64), rf"stores '{KEY}' as int64"),
    "bool": (lambda array: array > 0, rf"stores '{KEY}' as bool"),
    "nan": (
        lambda array: np.where(array == array.max(), np.nan, array),
        rf"'{KEY}' is not finite in float32: 1 of",
    ),
    "inf": (
        lambda array: np.where(array == array.max(), np.inf, array),
        rf"'{KEY}' is not finite in float32: 1 of",
    ),
}


@pytest.fixture
def in_small(monkeypatch):
    monkeypatch.setattr("fmjax.weights.load.names.get_spec", lambda name: small(name.split(".")[0]))


@pytest.mark.parametrize("kind", BAD)
@pytest.mark.parametrize("command", ["load", "convert", "verify"])
def test_every_command_refuses_what_is_no_weight(tmp_path, in_small, command, kind):
    change, message = BAD[kind]
    file = random_file(small("ViT-B-16"), "open_clip")
    path = save(tmp_path / "x.safetensors", file | {KEY: change(file[KEY])})
    commands = {
        "load": lambda: fmjax.load(NAME, checkpoint=path),
        "convert": lambda: convert(NAME, str(path), str(tmp_path / "new.safetensors")),
        "verify": lambda: verify(NAME, checkpoint=str(path)),
    }
    with pytest.raises(CheckpointError, match=message):
        commands[command]()
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_numbers_that_are_too_large_for_the_type_asked_for_are_refused(tmp_path, in_small):
    file = random_file(small("ViT-B-16"), "open_clip")
    path = save(tmp_path / "x.safetensors", file | {KEY: file[KEY] * np.float32(1e5)})
    assert fmjax.load(NAME, checkpoint=path)
    with pytest.raises(CheckpointError, match=rf"'{KEY}' is not finite in float16"):
        fmjax.load(NAME, checkpoint=path, param_dtype=jnp.float16)


def test_a_lead_that_no_file_has_is_not_put_before_names(tmp_path, in_small):
    from safetensors.numpy import load_file, save_file

    source = save(tmp_path / "x.safetensors", random_file(small("ViT-B-16"), "open_clip"))
    convert(NAME, str(source), str(tmp_path / "ours.safetensors"))
    metadata = {"format": "fmjax", "model": NAME, "dialect": "open_clip", "facts": json.dumps({})}
    hostile = tmp_path / "hostile.safetensors"
    save_file(load_file(tmp_path / "ours.safetensors"), hostile, metadata | {"lead": "\x1b[2J"})
    with pytest.raises(CheckpointError, match=r"has names under '\\x1b\[2J', as no open_clip file"):
        export_file(str(hostile), str(tmp_path / "back.safetensors"))
    assert not (tmp_path / "back.safetensors").exists()


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(), (7,), (300, 700), (2, 3, 4), (0, 3)])
def test_one_value_that_is_no_number_is_found_anywhere(dtype, shape):
    # whose sum is not finite, and each of them is
    whole = np.full(shape, ml_dtypes.finfo(dtype).max, dtype)
    assert finite(whole)
    for place in {0, whole.size // 2, whole.size - 1} if whole.size else ():
        for value in (np.nan, np.inf, -np.inf):
            changed = whole.copy()
            changed.flat[place] = value
            assert not finite(changed)
            assert not transfer_finite(np.empty_like(changed.T), changed.T)
    target = np.empty(whole.T.shape, dtype)
    assert transfer_finite(target, whole.T)
    assert np.array_equal(target, whole.T)
