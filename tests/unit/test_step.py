"""The step of any task: averages, parts of a batch, and what a loss is told."""

from __future__ import annotations

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fmjax.config.data import DataConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import Recipe
from fmjax.config.run import RunConfig
from fmjax.config.tasks import TaskConfig
from fmjax.engine.state import handed_out
from fmjax.engine.step import old_share
from fmjax.models.heads import classifier_head
from fmjax.sharding import make_mesh
from fmjax.tasks.task import Task
from fmjax.trees import flat
from tests.support.runs import started

pytestmark = pytest.mark.usefixtures("quick_compiler")


class Distil(Task):
    """Learns from its own average: logs how far the two are apart."""

    def parts(self, backbone, labels, rngs):
        return {"backbone": backbone, "head": classifier_head(backbone.spec, 4, rngs=rngs)}

    def loss(self, net, batch, now):
        ours = net["backbone"](batch["image"]).pooled
        theirs = net["backbone"] if now.teacher is None else now.teacher["backbone"]
        apart = jnp.abs(ours - jax.lax.stop_gradient(theirs(batch["image"]).pooled)).max()
        value = ((ours - 1) ** 2).mean(-1) * batch["weight"]
        return value.sum() / now.count, {
            "apart": apart,
            "drawn": jax.random.uniform(now.key),
            "count": now.count,
        }

    def outputs(self, net, batch):
        return {"pooled": net["backbone"](batch["image"]).pooled}

    def scores(self, rows, labels):
        return {"loss": float(rows["pooled"].mean())}


@dataclass(frozen=True, kw_only=True)
class DistilConfig(TaskConfig):
    home = Distil


class Centred(Distil):
    """Keeps the running mean of the pooled tokens in a parameter."""

    def parts(self, backbone, labels, rngs):
        return {"backbone": backbone, "head": nnx.BatchNorm(backbone.spec.pool_dim, rngs=rngs)}

    def loss(self, net, batch, now):
        pooled = net["backbone"](batch["image"]).pooled
        mean = pooled.mean(0)
        value = ((pooled - mean) ** 2).mean(-1) * batch["weight"]
        return value.sum() / now.count, {"averages": {"head.mean": mean}, "mean": mean[0] / 2}


@dataclass(frozen=True, kw_only=True)
class CentredConfig(TaskConfig):
    home = Centred


SAME = 1e-5  # two forward passes of one program, which a compiler may order differently
CONFIG = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", dtype="float32"),
    data=DataConfig(crop_scale=1.0, flip=0.0),
    task=DistilConfig(),
    recipe=Recipe(lr=1e-3, warmup_steps=0, ema=0.9),
    steps=4,
    batch_size=8,
)


@pytest.fixture(scope="module")
def run():
    return started(CONFIG, make_mesh(data=8))


def test_a_loss_is_told_the_average_the_count_and_a_key_of_its_step(run):
    logs = []
    for _ in range(3):
        run.state, found = run.functions.step(run.state, run.batch())
        logs.append({name: float(value) for name, value in found.items()})
    assert [row["count"] for row in logs] == [8, 8, 8]
    assert logs[0]["apart"] < SAME  # the average begins where the parameters do
    assert logs[2]["apart"] > 10 * SAME
    assert len({row["drawn"] for row in logs}) == 3


def test_the_average_follows_the_parameters_and_only_those_that_are_trained(run):
    before = jax.tree.map(np.asarray, run.state.ema)
    run.state, _ = run.functions.step(run.state, run.batch())
    trained = {
        path: leaf
        for path, leaf in flat(run.state.params).items()
        if path not in run.plan.freeze.paths
    }
    assert flat(run.state.ema).keys() == trained.keys()
    # the fourth step: three are done
    share = (1 + 3) / (10 + 3)
    for path, leaf in flat(run.state.ema).items():
        expected = share * flat(before)[path] + (1 - share) * np.asarray(trained[path])
        np.testing.assert_allclose(leaf, expected, rtol=1e-6, atol=1e-8)
    # the loss does not depend on the head
    assert run.plan.freeze.paths == {"head.kernel", "head.bias"}


def test_the_share_of_the_old_average_grows_to_the_one_that_is_asked_for(run):
    shares = [float(old_share(run.plan, jnp.int32(done))) for done in (0, 5, 79, 80, 81, 1000)]
    assert shares == pytest.approx([0.1, 0.4, 80 / 89, 0.9, 0.9, 0.9])
    plan = replace(run.plan, ema_warmup=False)
    assert old_share(plan, jnp.int32(0)) == 0.9


def test_what_is_handed_out_is_the_average_unless_the_parameters_are_asked_for(run):
    ours = flat(handed_out(run.plan, run.state))
    assert ours.keys() == flat(run.state.params).keys()
    average = flat(run.state.ema)
    assert all(
        ours[path] is average.get(path, leaf) for path, leaf in flat(run.state.params).items()
    )
    plain = replace(run.plan, averages=False)
    assert handed_out(plain, run.state) is run.state.params


def test_without_an_average_there_is_no_teacher():
    plain = started(replace(CONFIG, recipe=replace(CONFIG.recipe, ema=0.0)), make_mesh(data=8))
    state, logs = plain.functions.step(plain.state, plain.batch())
    assert state.ema == {}
    assert float(logs["apart"]) < SAME


def test_a_running_average_follows_the_batches_and_costs_no_gradient():
    recipe = replace(CONFIG.recipe, ema=0.0, accumulate=2)
    run = started(
        replace(CONFIG, batch_size=16, task=CentredConfig(), recipe=recipe), make_mesh(data=8)
    )
    assert "head.mean" in run.plan.freeze.paths
    expected = 0.0
    for _ in range(3):
        run.state, logs = run.functions.step(run.state, run.batch())
        # each of the two parts logs half of its own
        expected = 0.9 * expected + 0.1 * float(logs["mean"])
    assert float(run.state.params["head"]["mean"][0]) == pytest.approx(expected, rel=1e-5)
    assert float(run.state.params["head"]["var"][0]) == 1  # of which nothing was said
