"""A backbone of a user's own, as the documentation shows it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import torch

import fmjax
import weights_conversion as wc
from fmjax import names
from fmjax.errors import UsageError
from fmjax.models.build import param_shapes
from weights_conversion import detection

GUIDE = (Path(__file__).parents[2] / "docs" / "adding_a_backbone.md").read_text()
CODE = re.search(r"```python\n(.*?)```", GUIDE, re.S).group(1)


@pytest.fixture
def clean(monkeypatch):
    """A registry that forgets what the test adds."""
    monkeypatch.setattr(names, "_registered", [])
    monkeypatch.setattr(detection, "_added", [])
    yield
    names._rows.cache_clear()
    names._aliases.cache_clear()


@pytest.fixture
def mine(clean, tmp_path, monkeypatch):
    """The documentation's code, run beside a file of its dialect."""
    assert len(CODE.splitlines()) < 40
    monkeypatch.chdir(tmp_path)
    before, last = CODE.rsplit("model =", 1)
    scope: dict = {}
    exec(compile(before, "guide", "exec"), scope)  # noqa: S102
    shapes = param_shapes(scope["SPEC"])
    rng = np.random.default_rng(0)
    params = wc.in_memory_tree(
        {path: rng.standard_normal(shape, np.float32) for path, shape in shapes.items()}
    )
    file = {key: tensor.read(()) for key, tensor in wc.to_torch(params, scope["MINE"]).items()}
    torch.save({key: torch.from_numpy(np.array(value)) for key, value in file.items()}, "my_vit.pt")
    exec(compile(f"model ={last}", "guide", "exec"), scope)  # noqa: S102
    return scope["model"], file


def test_the_same_rows_may_be_registered_again_and_others_of_their_name_may_not(mine):
    spec = fmjax.get_spec("my_vit")
    fmjax.register(spec)
    with pytest.raises(UsageError, match="ViTSpec 'my_vit' exists already"):
        fmjax.register(replace(spec, depth=spec.depth + 1))


def test_the_guide_registers_and_loads_a_backbone(mine):
    model, file = mine
    assert model.spec.name == "my_vit"
    assert fmjax.list_models("my_vit*", pretrained=True) == ["my_vit.v1"]
    assert fmjax.preprocess_config("my_vit.v1").mean == (0.5, 0.5, 0.5)
    assert np.array_equal(model.cls_token[...], file["embed.cls"][0, 0])
    assert model(jnp.zeros((1, 224, 224, 3))).pooled.shape == (1, 192)


def test_a_registered_dialect_is_written_back_bit_by_bit(mine, tmp_path):
    model, file = mine
    back = wc.dialects()["mine"]
    from safetensors.numpy import load_file

    written = load_file(fmjax.export(model, tmp_path / "x.safetensors", back.name))
    assert written.keys() == file.keys()
    assert all(np.array_equal(written[key], value) for key, value in file.items())


def test_a_registered_file_is_told_by_its_keys(mine):
    assert wc.detect(wc.in_memory_tree(mine[1])).name == "mine"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (lambda: [fmjax.get_spec("ViT-B-16")], "'ViT-B-16' exists already"),
        (lambda: [wc.get_dialect("timm")], "'timm' exists already"),
        (
            lambda: [replace(fmjax.get_weights("ViT-B-16.openai"), model="my_vti")],
            "no architecture 'my_vti'",
        ),
        (
            lambda: [replace(fmjax.get_weights("ViT-B-16.openai"), tag="x", sources=(BAD,))],
            "no dialect 'tim'",
        ),
    ],
)
def test_what_cannot_be_registered_says_why_and_adds_nothing(clean, rows, message):
    before = fmjax.list_models(pretrained=True)
    with pytest.raises(UsageError, match=message):
        fmjax.register(*rows())
    assert fmjax.list_models(pretrained=True) == before


BAD = fmjax.Source("hf", "me/mine", "model.safetensors", "tim")
