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
from fmjax.programs.flags import parsed
from fmjax.serial import from_dict, to_json

ROOT = Path(__file__).parents[2]
PRESETS = sorted(p for p in (ROOT / "configs").glob("*.py") if p.stem != "__init__")


@pytest.mark.parametrize("path", PRESETS, ids=lambda p: p.stem)
def test_preset_parses_and_says_what_it_costs(path):
    assert load_preset(str(path)) == load_preset(path.stem)
    docstring = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert all(word in docstring for word in ("Expected:", "Cost:", "Command:"))


def test_json_round_trip():
    recipe = c.Recipe(lr=3e-4, rates=((r"backbone\..*", 0.0), (r"head\..*", 20.0)))
    for record in (recipe, load_preset("quickstart").data, c.ModelConfig(image_size=(56, 28))):
        assert from_dict(type(record), json.loads(to_json(record))) == record


@pytest.mark.parametrize(("word", "meant"), [("auto", "auto"), ("true", True), ("false", False)])
def test_a_switch_is_read_from_words_and_from_records_that_knew_two_of_them(word, meant):
    config = parsed(c.BenchConfig, ["--unroll", word], prog="fmjax bench")
    assert config.unroll == meant
    assert parsed(c.BenchConfig, [], prog="fmjax bench").unroll == "auto"
    record = json.loads(to_json(c.RunConfig(unroll=meant)))
    assert record["unroll"] == meant
    assert from_dict(c.RunConfig, {"unroll": record["unroll"]}).unroll == meant
    with pytest.raises(UsageError, match="unroll is 'yes'; it must be 'auto' or bool"):
        from_dict(c.RunConfig, {"unroll": "yes"})


def test_an_unknown_field_is_answered_with_the_nearest():
    with pytest.raises(UsageError, match=r"no field 'weight_decya'; did you mean weight_decay"):
        from_dict(c.Recipe, {"weight_decya": 0.1})
    with pytest.raises(UsageError, match="did you mean quickstart"):
        load_preset("quickstrat")


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: c.Recipe(lr=-1.0), "--recipe.lr"),
        (lambda: c.DataConfig(source="folder"), "--data.source"),
        (lambda: c.DataConfig(val_fraction=1.0), "--data.val-fraction"),
        (lambda: c.RunConfig(batch_size=10, recipe=c.Recipe(accumulate=4)), "--batch-size"),
        (lambda: c.Recipe(rates=(("*.bias", 0.0),)), "--recipe.rates"),
        (lambda: c.Recipe(decay=((".*", -1.0),)), "--recipe.decay"),
        (lambda: c.EmbedConfig(batch_size=0), "--batch-size"),
        (lambda: c.BenchConfig(kinds=()), r"--kinds is \(\); it must be some of start product"),
        (lambda: c.BenchConfig(seconds=float("inf")), "--seconds is inf"),
        (lambda: c.RunConfig(task=c.ClassifyConfig(classifier="patches")), "--export"),
        (lambda: c.ModelConfig(image_size=(224, 0)), "--model.image-size"),
        (lambda: c.KnnConfig(k=0), "--k"),
        (lambda: c.RunConfig(seed=-1), "--seed"),
        (lambda: c.ProbeConfig(seed=2**32), "--seed"),
        (lambda: c.DataConfig(split_seed=-1), "--data.split-seed"),
        (lambda: c.Recipe(lr=float("inf")), "--recipe.lr"),
        (lambda: c.Recipe(b1=2.0), "--recipe.b1"),
        (lambda: c.Recipe(max_skipped=-1), "--recipe.max-skipped"),
        (lambda: c.Recipe(optimiser="sgd", momentum=1.0), "--recipe.momentum"),
        (lambda: c.Recipe(momentum=0.9), r"--recipe.momentum is 0.9; .* adamw, which has"),
        (lambda: c.Recipe(optimiser="lion", nesterov=True), "--recipe.nesterov"),
        (lambda: c.Recipe(optimiser="sgd", momentum=0.0, nesterov=True), "--recipe.nesterov"),
        (lambda: c.Recipe(optimiser="adafactor", moments="bfloat16"), "--recipe.moments"),
        (lambda: c.Recipe(step_at=(0.5, 1.0)), "--recipe.step-at"),
        (lambda: c.Recipe(step_factor=1.0), "--recipe.step-factor"),
        (lambda: c.Recipe(last_blocks=-1), "--recipe.last-blocks"),
        (lambda: c.Recipe(last_blocks=2, train="head"), "--recipe.last-blocks is 2; it must be 0"),
        (lambda: c.Recipe(clip_by="part", clip_norm=0.0), "--recipe.clip-by"),
        (lambda: c.ProbeConfig(sweep=True, c=2.0), "--c is 2.0; it must be left out with --sweep"),
        (lambda: c.Recipe(weight_decay=-1.0), "--recipe.weight-decay"),
        (lambda: c.ProbeConfig(max_iter=0), "--max-iter"),
        (lambda: c.EvalConfig(step=-5), "--step"),
        (lambda: c.ProbeConfig(folds=1), "--folds"),
        (lambda: c.MeshConfig(simulate_devices=-1), "--simulate-devices"),
        (lambda: c.RunConfig(memory_gib=-1.0), "--memory-gib"),
        (lambda: c.RunConfig(log=("wandb", "wandb")), "--log is 'wandb wandb'; .* each tool once"),
        (lambda: c.RunConfig(log_project="a/b"), "--log-project"),
        (lambda: c.RunConfig(profile_steps="10"), "--profile-steps is '10'; it must be FIRST:LAST"),
        (lambda: c.RunConfig(profile_steps="13:10"), "--profile-steps"),
        (lambda: c.RunConfig(profile_steps="0:3"), "--profile-steps"),
        (lambda: c.RunConfig(profile_steps="1:101"), "--profile-steps"),
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
