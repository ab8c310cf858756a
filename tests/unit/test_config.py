"""Presets, checks, and the way to JSON and back."""

from __future__ import annotations

import ast
import dataclasses
import json
from pathlib import Path

import pytest

from fmjax import config as c
from fmjax.config.presets import load_preset
from fmjax.errors import UsageError
from fmjax.serial import from_dict, to_json

ROOT = Path(__file__).parents[2]
PRESETS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_parses_and_says_what_it_costs(path):
    assert load_preset(str(path)) == load_preset(path.stem)
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert all(word in docstring for word in ("Expected:", "Cost:", "Command:"))


def test_json_round_trip():
    config = load_preset("quickstart")
    assert from_dict(c.FinetuneConfig, json.loads(to_json(config))) == config


def test_an_unknown_field_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"no field 'weight_decya'; did you mean weight_decay"):
        from_dict(c.OptimConfig, {"weight_decya": 0.1})
    with pytest.raises(UsageError, match="did you mean quickstart"):
        load_preset("quickstrat")


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: c.OptimConfig(lr=-1.0), "--optim.lr"),
        (lambda: c.DataConfig(source="folder"), "--data.source"),
        (lambda: c.DataConfig(val_fraction=1.0), "--data.val-fraction"),
        (lambda: c.FinetuneConfig(batch_size=10, optim=c.OptimConfig(accumulate=4)), "--batch-size"),
        (lambda: c.OptimConfig(freeze=("*.bias",)), "--optim.freeze"),
        (lambda: c.EmbedConfig(batch_size=0), "--batch-size"),
        (lambda: c.FinetuneConfig(classifier="patches"), "--export"),
        (lambda: c.ModelConfig(image_size=(224, 0)), "--model.image-size"),
        (lambda: c.KnnConfig(k=0), "--k"),
        (lambda: c.FinetuneConfig(seed=-1), "--seed"),
        (lambda: c.ProbeConfig(seed=2**32), "--seed"),
        (lambda: c.DataConfig(split_seed=-1), "--data.split-seed"),
        (lambda: c.OptimConfig(lr=float("inf")), "--optim.lr"),
        (lambda: c.OptimConfig(b1=2.0), "--optim.b1"),
        (lambda: c.OptimConfig(weight_decay=-1.0), "--optim.weight-decay"),
        (lambda: c.ProbeConfig(max_iter=0), "--max-iter"),
        (lambda: c.EvalConfig(step=-5), "--step"),
        (lambda: c.ProbeConfig(folds=1), "--folds"),
    ],
)
def test_a_bad_value_names_its_flag(make, flag):
    with pytest.raises(UsageError, match=flag):
        make()


def test_every_field_is_read_somewhere():
    text = "".join(p.read_text() for p in (ROOT / "fmjax").rglob("*.py") if p.name != "config.py")
    kinds = [k for k in vars(c).values() if dataclasses.is_dataclass(k)]
    names = {field.name for kind in kinds for field in dataclasses.fields(kind)}
    assert {name for name in names if f".{name}" not in text} == set()
