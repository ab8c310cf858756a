"""Training beside timm, of one backbone in few steps, and what would tell the two apart; `python -m
tests.parity.training` trains all of them."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pytest
import torch

from fmjax.trees import flat
from tests.parity import report
from tests.parity.measure import random_params
from tests.parity.training import __main__ as command
from tests.parity.training import compare, ours, page, theirs
from tests.parity.training.settings import BACKBONES, CASES, CLASSES, GROUPS, REGISTERS

pytestmark = pytest.mark.usefixtures("quick_compiler")

STEPS = 10
DINOV2 = BACKBONES[2]
ALL = frozenset({"loss", "parameter", "way", "average", "average_way"})


@pytest.fixture(scope="module")
def both():
    return compare.prepare(DINOV2, GROUPS, STEPS)


def test_losses_parameters_and_their_average_are_timms(both):
    apart = both.distance(both.trained, both.timm())
    assert apart.over == {}
    assert apart.average is not None
    assert both.trained.losses[-1] < both.trained.losses[0]


@pytest.mark.parametrize(
    ("changes", "seen"),
    [
        ({"opt_eps": 1e-6}, ALL),
        ({"opt_betas": (0.9, 0.99)}, {"loss", "way", "average_way"}),
        ({"layer_decay": 0.76}, ALL),
        ({"weight_decay": 0.0}, {"way", "average_way"}),
        ({"clip_grad": None}, ALL),
        ({"model_ema_decay": 0.91}, {"average_way"}),
        ({"warmup_updates": 6}, ALL),
        ({"min_lr": 0.0}, {"loss", "way", "average_way"}),
    ],
    ids=lambda names: "-".join(sorted(names)),  # of a set: each process has an order of its own
)
def test_another_number_is_seen(both, changes, seen):
    script = replace(GROUPS.script, **changes)
    assert seen <= both.distance(both.trained, both.timm(script)).over.keys()


def one_layer_up(model, script):
    """Every layer at the rate of the one after it."""
    optimiser = theirs.optimiser(model, script)
    for group in optimiser.param_groups:
        group["lr_scale"] = min(1.0, group["lr_scale"] / script.layer_decay)
    return optimiser


def norm_with_the_head(model, script):
    """The final norm as BEiT counts it, and as a recipe without a row for it has it."""
    rules = model.group_matcher()
    rules["blocks"] = rules["blocks"][:1]
    model.group_matcher = lambda coarse: rules
    return theirs.optimiser(model, script)


def tokens_decay(model, script):
    model.no_weight_decay = set
    return theirs.optimiser(model, script)


def decay_in_the_gradient(model, script):
    """Adam with an L2 penalty in the place of AdamW."""
    groups = theirs.optimiser(model, script).param_groups
    for group in groups:
        group["decoupled_weight_decay"] = False
    return torch.optim.Adam(groups, lr=script.lr, eps=script.opt_eps)


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (one_layer_up, ALL),
        (norm_with_the_head, {"way", "average_way"}),
        (tokens_decay, {"way", "average_way"}),
        (decay_in_the_gradient, ALL),
    ],
)
def test_another_optimiser_is_seen(both, make, seen):
    other = both.timm(make_optimiser=make)
    assert seen <= both.distance(both.trained, other).over.keys()


def test_parts_that_add_up_to_another_batch_are_seen(both):
    # the first half of every batch in the place of both parts
    half = [(np.repeat(x[::2], 2, 0), np.repeat(y[::2], 2, 0)) for x, y in both.batches]
    other = replace(both, batches=half).timm()
    assert {"loss", "norm"} <= both.distance(both.trained, other).over.keys()


@pytest.mark.parametrize("backbone", [*BACKBONES[:2], REGISTERS], ids=lambda b: b.name)
def test_rate_and_decay_of_every_parameter_are_those_of_timms_groups(backbone):
    file = ours.to_file(backbone, random_params(backbone.spec, CLASSES, seed=1))
    rates, decays = groups(backbone, file)
    found_rates, found_decays = resolved(backbone, file)
    for path, expected in rates.items():
        np.testing.assert_allclose(found_rates[path], expected, rtol=1e-3, err_msg=path)
        np.testing.assert_allclose(
            found_decays[path], decays[path], rtol=1e-3, atol=1e-3, err_msg=path
        )


def groups(backbone, file):
    """The factors of timm's rate and its weight decay, in the places of the parameters."""
    model = theirs.build(backbone, file)
    rates, decays = {}, {}
    names = {id(value): name for name, value in model.named_parameters()}
    for group in theirs.optimiser(model, GROUPS.script).param_groups:
        for value in group["params"]:
            name, ones = names[id(value)], np.ones(value.shape, np.float32)
            rates[name] = ones * np.float32(group["lr_scale"])
            decays[name] = ones * np.float32(group["lr_scale"] * group["weight_decay"])
    return ours.to_params(backbone, rates), ours.to_params(backbone, decays)


def resolved(backbone, file):
    """The same of a plan, seen in what its optimiser makes of equal gradients."""
    run = ours.prepare(backbone, GROUPS, file, steps=1).run
    trained = run.state.ema
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), trained)
    zeros = jax.tree.map(np.zeros_like, ones)
    update = jax.jit(run.plan.tx.update)
    # Adam makes a step of 1 of each; a parameter of 0 has nothing to decay
    of = {}
    for name, params in (("rate", zeros), ("both", ones)):
        moved = flat(update(ones, run.state.opt, params)[0])
        of[name] = {path: -np.asarray(leaf) / run.plan.rate(0) for path, leaf in moved.items()}
    decays = {path: of["both"][path] - rate for path, rate in of["rate"].items()}
    # what is not trained does not move
    still = {
        path: np.zeros(leaf.shape, np.float32)
        for path, leaf in flat(run.state.params).items()
        if path not in decays and not path.endswith("proj.kernel")
    }
    found = [ours.to_file(backbone, still | part) for part in (of["rate"], decays)]
    return [ours.to_params(backbone, part) for part in found]


@pytest.fixture(scope="module")
def stored():
    return page.load(page.RESULTS)


def test_the_page_is_of_every_case_and_all_are_within_the_bounds(stored):
    cases = [(backbone.name, setting.name) for backbone, setting in CASES]
    assert [(result.backbone, result.setting) for result in stored] == cases
    assert [result.apart.over for result in stored] == [{}] * len(cases)


def test_a_number_beyond_its_bound_is_bold_and_fails_the_command(tmp_path, stored, monkeypatch):
    monkeypatch.setattr(report, "page", lambda models, authors, training: page.section(training))
    wrong = replace(stored[0], apart=replace(stored[0].apart, loss=0.25, way=float("nan")))
    assert {"loss", "way"} == wrong.apart.over.keys()
    made = {"date": "2100-01-01", "versions": "torch 0", "python": "3"}
    files = ["--json", str(tmp_path / "training.json"), "--out", str(tmp_path / "page.md")]
    for results, code in (([wrong, *stored[1:]], 1), (stored, 0)):
        page.store(tmp_path / "training.json", results, made)
        assert command.main(["--page", *files]) == code
        text = (tmp_path / "page.md").read_text()
        assert "on 2100-01-01 with torch 0" in text
        assert ("**2.5e-01**" in text) == bool(code)


def test_the_section_is_marked_in_the_page():
    text = (report.ROOT / "docs" / "parity.md").read_text()
    assert text.count(page.section()) == text.count(page.BEGIN) == text.count(page.END) == 1
