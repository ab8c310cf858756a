"""Mixtures of the images of a batch: timm's arithmetic, the same on any mesh and in any number of parts."""

from __future__ import annotations

import re
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from jax.sharding import Mesh

import fmjax
from fmjax.config import (
    ClassifyConfig,
    DataConfig,
    ModelConfig,
    MultiLabelConfig,
    Recipe,
    RunConfig,
)
from fmjax.errors import UsageError
from fmjax.models.build import initialise
from fmjax.sharding import batch_sharding, make_mesh
from fmjax.tasks.classify import smoothed
from fmjax.tasks.mixing import mixed, mixture, of_both, rectangle
from tests.support import torch_reference
from tests.support.runs import started

pytestmark = pytest.mark.usefixtures("quick_compiler")

assert torch_reference  # declares what torchvision needs before timm is imported

BOTH = ClassifyConfig(mixup=0.8, cutmix=1.0)
SIZE = (12, 16)


def batch(count: int = 6) -> dict[str, jax.Array]:
    rng = np.random.default_rng(0)
    return {
        "image": jnp.asarray(rng.integers(0, 256, (count, *SIZE, 3), np.uint8)),
        "label": jnp.asarray(rng.integers(0, 5, count), jnp.int32),
        "weight": jnp.ones(count, jnp.float32),
    }


@pytest.mark.parametrize("config", [ClassifyConfig(mixup=0.4), ClassifyConfig(cutmix=1.0), BOTH])
def test_images_and_targets_are_timms_for_the_same_share(monkeypatch, config):
    from timm.data import mixup

    for seed in range(6):
        key, given = jax.random.key(seed), batch()
        own, share = mixture(jax.random.fold_in(key, 0x6D6978), SIZE, config)
        own, share = np.asarray(own), float(share)
        cuts = len(np.unique(own)) > 1 or float(own.mean()) == 1
        # timm's own code is told what was drawn here
        timm = mixup.Mixup(mixup_alpha=1.0, label_smoothing=0.1, num_classes=5)
        rows, columns = (np.flatnonzero((own == 0).any(axis)) for axis in (1, 0))
        box = (0, 0, 0, 0)
        if len(rows):
            box = (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1)
        monkeypatch.setattr(timm, "_params_per_batch", lambda s=share, c=cuts: (s, c))
        monkeypatch.setattr(mixup, "cutmix_bbox_and_lam", lambda *_, b=box, s=share, **__: (b, s))
        images = torch.from_numpy(np.array(given["image"]).transpose(0, 3, 1, 2)).float()
        labels = torch.from_numpy(np.array(given["label"]))
        expected, targets = timm(images, labels)

        found = mixed(given, key, config, labels="label")
        assert found["image"].dtype == np.uint8
        apart = np.asarray(found["image"], np.float32) - expected.numpy().transpose(0, 2, 3, 1)
        assert np.abs(apart).max() <= 0.5001
        ours = of_both(lambda row: smoothed(row, 5, 0.1), found, labels="label")
        np.testing.assert_allclose(ours, targets.numpy(), atol=1e-6)


def test_the_rectangle_is_timms_in_size_and_its_share_is_what_is_left():
    from timm.data.mixup import rand_bbox

    np.random.seed(0)
    ours, theirs = [], []
    for seed in range(300):
        area = (seed % 10 + 0.5) / 10
        top, bottom, left, right = rand_bbox((3, *SIZE), 1 - area)
        theirs.append((bottom - top) * (right - left) / (SIZE[0] * SIZE[1]))
        ours.append(float(rectangle(jax.random.key(seed), SIZE, jnp.float32(area)).mean()))
    assert np.mean(ours) == pytest.approx(np.mean(theirs), abs=0.03)
    assert np.std(ours) == pytest.approx(np.std(theirs), abs=0.03)
    own, share = mixture(jax.random.key(1), SIZE, ClassifyConfig(cutmix=1.0))
    assert float(own.mean()) == pytest.approx(float(share), abs=1e-6)


def test_how_often_and_how_much_is_as_asked():
    keys = jax.random.split(jax.random.key(0), 2_000)

    def drawn(config: ClassifyConfig) -> tuple[np.ndarray, np.ndarray]:
        own, share = jax.jit(jax.vmap(lambda key: mixture(key, SIZE, config)))(keys)
        own = np.asarray(own).reshape(len(keys), -1)
        return own.min(1) != own.max(1), np.asarray(share)

    cuts, share = drawn(replace(BOTH, mix_prob=0.5, mix_switch=0.25))
    # some rectangles are empty or the whole
    assert cuts.mean() == pytest.approx(0.125, abs=0.03)
    assert (share == 1).mean() == pytest.approx(0.5, abs=0.05)
    cuts, share = drawn(ClassifyConfig(mixup=0.2))
    assert not cuts.any()
    # Beta(a, a) has the variance 1 / (4 (2a + 1))
    assert share.mean() == pytest.approx(0.5, abs=0.03)
    assert share.var() == pytest.approx(1 / (4 * 1.4), abs=0.01)


def test_what_could_not_be_read_is_mixed_with_nothing():
    given = batch()
    given["image"] = given["image"].at[1].set(0)
    given["weight"] = given["weight"].at[1].set(0)
    found = mixed(given, jax.random.key(2), BOTH, labels="label")
    still = [np.array_equal(found["image"][i], given["image"][i]) for i in range(6)]
    assert still == [False, True, False, False, True, False]
    assert np.asarray(found["share"])[[1, 4]].tolist() == [1, 1]


def test_without_a_mixture_a_batch_is_itself():
    given = batch()
    assert mixed(given, jax.random.key(0), ClassifyConfig(), labels="label") is given


RUN = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", dtype="float32"),
    data=DataConfig(crop_scale=1.0, flip=0.0),
    task=replace(BOTH, label_smoothing=0.1),
    recipe=Recipe(lr=1e-2, warmup_steps=0),
    steps=4,
    batch_size=16,
)
SPEC = replace(
    fmjax.get_spec("demo_vit_ti4"),
    width=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
    image_size=(8, 8),
)


def losses(config: RunConfig, mesh: Mesh) -> np.ndarray:
    """Of three steps of a very small network."""
    backbone = initialise(SPEC, nnx.Rngs(0), dtype=jnp.float32, mesh=mesh)
    return np.asarray(started(config, mesh, backbone).losses(3))


def test_losses_are_the_same_on_any_mesh_and_in_any_number_of_parts(monkeypatch):
    met = []

    def noted(batch, *options, **named):
        met.append(batch["image"].shape)
        return mixed(batch, *options, **named)

    monkeypatch.setattr("fmjax.tasks.classify.mixed", noted)
    one = losses(RUN, make_mesh(devices=jax.devices()[:1]))
    parts = replace(RUN, recipe=replace(RUN.recipe, accumulate=2))
    np.testing.assert_allclose(losses(parts, make_mesh(data=2, fsdp=4)), one, rtol=2e-5)
    # of bytes, and never of a part
    assert set(met) == {(16, 8, 8, 3)}
    assert len(set(one.tolist())) == 3


def test_devices_exchange_images_in_pairs_and_gather_none():
    mesh = make_mesh(data=2, fsdp=4)
    where = batch_sharding(mesh)
    given = jax.device_put(batch(16), where)
    function = jax.jit(
        lambda one, key: mixed(one, key, BOTH, labels="label"), in_shardings=(where, None)
    )
    text = function.lower(given, jax.random.key(0)).compile().as_text()
    gathered = re.findall(r"\S+\[16,12,16,3\]\S* all-gather", text)
    assert gathered == []
    assert re.search(r"u8\[2,12,16,3\]\S* collective-permute", text)
    alone = mixed(batch(16), jax.random.key(0), BOTH, labels="label")
    shared = function(given, jax.random.key(0))
    assert all(np.array_equal(alone[name], shared[name]) for name in alone)


@pytest.mark.parametrize("kind", [ClassifyConfig, MultiLabelConfig])
@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixup": -0.1}, "--task.mixup is -0.1; it must be 0 or more"),
        ({"cutmix": float("inf")}, "--task.cutmix"),
        ({"mix_prob": 1.5}, "--task.mix-prob is 1.5; it must be a share"),
        ({"mix_switch": -1.0}, "--task.mix-switch"),
        ({"mix_prob": 0.5}, "--task.mix-prob is 0.5; it must be left out without --task.mixup or"),
        (
            {"mixup": 0.2, "mix_switch": 0.1},
            "--task.mix-switch is 0.1; it must be left out but where both",
        ),
    ],
)
def test_a_share_out_of_range_is_one_sentence(kind, options, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        kind(**options)
