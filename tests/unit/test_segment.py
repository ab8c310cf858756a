"""A class for every pixel: what is learned, what is counted, and what the scores mean."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from PIL import Image
from sklearn.metrics import jaccard_score

import fmjax
from fmjax.config import DataConfig, ModelConfig, RunConfig, SegmentConfig
from fmjax.data.masks import IGNORED
from fmjax.data.transforms import Views
from fmjax.engine.plan import Learner
from fmjax.errors import DataError, UsageError
from fmjax.models.dense import to_pixels
from fmjax.preprocessing import preprocess_config
from fmjax.programs.finetune import one_run
from fmjax.report.segments import class_colours, draw_segments
from fmjax.tasks.segment import Segment, ious, overlap, pixel_losses
from fmjax.tasks.task import Now
from fmjax.trees import flat, nested
from tests.support.scenes import SHAPES, drawn

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAME = "demo_vit_ti4.fashion_mnist"
IMAGES = preprocess_config(NAME)
RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def learner() -> Learner:
    return made(SegmentConfig(layers=2))


def made(config: SegmentConfig, scale: float = 0.3) -> Learner:
    """A net whose head is not zero."""
    task = Segment(config, Views(IMAGES, flip=0.5))
    net = task.parts(fmjax.load(NAME), SHAPES, nnx.Rngs(0))
    head = net["head"]
    head.kernel = nnx.Param(jax.random.normal(jax.random.key(1), head.kernel.shape) * scale)
    return Learner(task, SHAPES, IMAGES, net)


def batch(size: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Noise, with masks of all classes and ignored pixels; the last example is a blank one."""
    rng = np.random.default_rng(seed)
    mask = rng.choice(np.asarray([0, 1, 2, IGNORED], np.uint16), (size, 28, 28))
    mask[-1] = IGNORED
    image = rng.integers(0, 256, (size, 28, 28, 3), np.uint8)
    return {
        "image": image,
        "mask": mask,
        "weight": np.asarray([1.0] * (size - 1) + [0.0], np.float32),
    }


def now(task: Segment, given: dict) -> Now:
    return Now(jnp.zeros((), jnp.int32), task.count(given), jax.random.key(0), None)


def normalised(given: dict) -> dict:
    images = (given["image"] / np.float32(255) - np.float32(IMAGES.mean)) / np.float32(IMAGES.std)
    return {name: jnp.asarray(field) for name, field in {**given, "image": images}.items()}


def test_the_loss_is_torchs_over_the_pixels_that_are_of_a_class():
    logits = RNG.normal(size=(2, 9, 7, 5)).astype(np.float32)
    mask = RNG.choice(np.asarray([0, 3, 4, IGNORED], np.uint16), (2, 9, 7))
    target = torch.from_numpy(np.where(mask == IGNORED, 255, mask).astype(np.int64))
    scores = torch.from_numpy(logits).permute(0, 3, 1, 2)
    expected = torch.nn.functional.cross_entropy(scores, target, ignore_index=255)
    found = pixel_losses(jnp.asarray(logits), jnp.asarray(mask)).sum() / (mask != IGNORED).sum()
    assert float(found) == pytest.approx(float(expected), rel=1e-6)


def test_logits_are_brought_to_the_pixels_as_torch_does():
    grid = RNG.normal(size=(2, 7, 5, 3)).astype(np.float32)
    images = torch.from_numpy(grid).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(
        images, size=(98, 70), mode="bilinear", align_corners=False
    )
    found = np.asarray(to_pixels(jnp.asarray(grid), 98, 70))
    assert np.abs(found - expected.permute(0, 2, 3, 1).numpy()).max() < 1e-5


def test_a_batch_loss_is_a_mean_over_pixels_and_blank_examples_are_no_part_of_it(learner):
    given = normalised(batch(4))
    value, logs = learner.task.loss(learner.net, given, now(learner.task, given))
    readable = {name: field[:-1] for name, field in given.items()}
    alone, _ = learner.task.loss(learner.net, readable, now(learner.task, readable))
    assert float(value) == pytest.approx(float(alone), rel=1e-6)
    known = given["mask"] != IGNORED
    losses = pixel_losses(learner.task.logits(learner.net, given), given["mask"])
    assert float(value) == pytest.approx(float(losses[known].mean()), rel=1e-5)
    assert 0 < float(logs["pixel_accuracy"]) < 1


def test_the_loss_of_an_untrained_head_is_that_of_a_guess(learner):
    given = normalised(batch(2))
    net = learner.task.parts(fmjax.load(NAME), SHAPES, nnx.Rngs(0))
    value, _ = learner.task.loss(net, given, now(learner.task, given))
    assert float(value) == pytest.approx(np.log(len(SHAPES)), rel=1e-6)


def test_ignored_pixels_have_no_gradient():
    logits = jnp.asarray(RNG.normal(size=(2, 6, 6, 4)), jnp.float32)
    mask = jnp.asarray(RNG.choice(np.asarray([0, 2, IGNORED], np.uint16), (2, 6, 6)))
    gradient = jax.grad(lambda x: pixel_losses(x, mask).sum())(logits)
    ignored = np.asarray(mask == IGNORED)
    assert not np.asarray(gradient)[ignored].any()
    assert (np.abs(np.asarray(gradient)[~ignored]).max(-1) > 0).all()


def test_parts_of_a_batch_add_up_to_it(learner):
    given = normalised(batch(4))
    whole = now(learner.task, given)
    value, logs = learner.task.loss(learner.net, given, whole)
    halves = [
        {name: field[part] for name, field in given.items()} for part in (slice(0, 2), slice(2, 4))
    ]
    parts = [learner.task.loss(learner.net, half, whole) for half in halves]
    assert sum(float(part) for part, _ in parts) == pytest.approx(float(value), rel=1e-5)
    assert sum(float(part["pixel_accuracy"]) for _, part in parts) == pytest.approx(
        float(logs["pixel_accuracy"])
    )


def test_mean_iou_is_scikit_learns_over_the_classes_that_have_pixels():
    mask = RNG.choice(np.asarray([0, 1, 3, IGNORED], np.uint16), (3, 20, 20))  # none of class 2
    found = RNG.integers(0, 4, (3, 20, 20))
    rows = {
        "overlap": np.asarray(overlap(jnp.asarray(found), jnp.asarray(mask), classes=4)),
        "loss": np.zeros(3, np.float32),
    }
    known = mask != IGNORED
    expected = jaccard_score(mask[known], found[known], labels=[0, 1, 3], average="macro")
    task = Segment(SegmentConfig(), Views(IMAGES))
    scores = task.scores(rows, ("a", "b", "c", "d"))
    assert scores["miou"] == pytest.approx(expected)
    assert scores["pixel_accuracy"] == pytest.approx((mask == found)[known].mean())
    every = jaccard_score(mask[known], found[known], labels=[0, 1, 2, 3], average=None)
    assert ious(rows["overlap"]) == pytest.approx(every)
    said = task.summary(scores, rows, ("a", "b", "c", "d"))
    assert "(over the 3 of 4 classes that have pixels); IoU a " in said
    assert ", c " not in said


def test_of_many_classes_the_worst_are_said():
    counts = np.asarray([[[i, 20, 20] for i in range(15)]])
    rows = {"overlap": counts, "loss": np.ones(1)}
    task = Segment(SegmentConfig(), Views(IMAGES))
    labels = tuple(f"class {i}" for i in range(15))
    said = task.summary(task.scores(rows, labels), rows, labels)
    assert said.endswith("worst IoU class 0 0.0%, class 1 2.6%, class 2 5.3%")


def test_pixels_of_no_class_alone_are_no_score():
    rows = {"overlap": np.zeros((2, 3, 3), np.int32), "loss": np.zeros(2)}
    with pytest.raises(DataError, match=r"no pixel of the 2 images is of a class.*--data\.ignore"):
        Segment(SegmentConfig(), Views(IMAGES)).scores(rows, SHAPES)


def test_rows_are_of_their_example_whatever_the_batch(learner):
    given, params = batch(6), nested(flat(learner.net))
    whole = jax.jit(learner.outputs)(params, given)
    parts = [
        jax.jit(learner.outputs)(params, {name: field[i : i + 2] for name, field in given.items()})
        for i in (0, 2, 4)
    ]
    for name, row in whole.items():
        again = np.concatenate([part[name] for part in parts])
        assert np.allclose(row, again, rtol=1e-5), name
    scores = [learner.task.scores(rows, SHAPES) for rows in (_joined([whole]), _joined(parts))]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)


def _joined(parts: list) -> dict:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def test_rows_are_small_and_show_what_was_seen(learner):
    given = batch(3)
    given["image"][0] = (250, 10, 130)
    given["mask"][0] = 2
    rows = jax.jit(learner.outputs)(nested(flat(learner.net)), given)
    assert sum(np.asarray(row)[0].nbytes for row in rows.values()) < 10_000
    assert np.abs(np.asarray(rows["picture"][0], int) - (250, 10, 130)).max() <= 1
    assert (np.asarray(rows["true"][0]) == 2).all()
    assert (np.asarray(rows["true"][2]) == 255).all()


def test_a_picture_of_predictions_is_drawn(learner, tmp_path):
    rows = jax.jit(learner.outputs)(nested(flat(learner.net)), batch(7))
    draw_segments(tmp_path / "x.png", {name: np.asarray(row) for name, row in rows.items()}, SHAPES)
    with Image.open(tmp_path / "x.png") as picture:
        assert picture.width > picture.height > 300
    assert len(np.unique(class_colours(100), axis=0)) == 100


def test_training_is_augmented_and_evaluation_sees_all_of_a_picture_once(learner):
    example = {
        "image": Image.new("RGB", (60, 30)),
        "mask": np.arange(1800).reshape(30, 60).astype(np.uint16),
    }
    seen = learner.task.view(example, None)
    assert seen["image"].shape == (28, 28, 3)
    assert (seen["mask"] != IGNORED).sum() == 28 * 14
    views = [learner.task.view(example, np.random.default_rng(i))["mask"] for i in range(8)]
    assert len({view.tobytes() for view in views}) == 8
    turned = [view[view != IGNORED][1] < view[view != IGNORED][0] for view in views]
    assert 0 < sum(turned) < 8


def test_layers_are_side_by_side_in_the_order_asked_for():
    for layers, inputs in ((1, 96), (4, 384), ((1, 3, 5), 288)):
        net = made(SegmentConfig(layers=layers)).net
        assert net["head"].kernel.shape == (inputs, len(SHAPES))
    last, same = made(SegmentConfig(layers=1)), made(SegmentConfig(layers=(5,)))
    given = normalised(batch(2))
    assert np.array_equal(last.task.logits(last.net, given), same.task.logits(same.net, given))


def config(root: Path, **changed) -> RunConfig:
    return RunConfig(
        out=str(root / "run"),
        model=ModelConfig(name=NAME),
        data=DataConfig(source=f"masks:{drawn(root / 'scenes', 6)}"),
        steps=1,
        batch_size=8,
        export="none",
        **changed,
    )


@pytest.mark.parametrize(
    ("changed", "error", "said"),
    [
        ({"task": SegmentConfig(layers=7)}, UsageError, "layers=7: pass a count from 1 to 6"),
        (
            {"task": SegmentConfig(layers=(2, 9))},
            UsageError,
            r"layers=\(2, 9\): .* increasing indices below 6",
        ),
        ({"model": ModelConfig(name=NAME, image_size=(30, 28))}, UsageError, "30"),
        (
            {"task": SegmentConfig(), "data": DataConfig(source="digits")},
            DataError,
            "digits has .* and no mask",
        ),
        ({}, DataError, "masks:.* has .* and no label"),
    ],
)
def test_what_cannot_be_learned_is_one_sentence(tmp_path, changed, error, said):
    given = {"task": SegmentConfig()} if changed else {}
    run = replace(config(tmp_path, **given), **changed)
    with pytest.raises(error, match=said):
        one_run(run)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("make", "flag"),
    [
        (lambda: SegmentConfig(layers=0), "--task.layers"),
        (lambda: SegmentConfig(layers=()), "--task.layers"),
        (lambda: SegmentConfig(scales=(2.0, 0.5)), "--task.scales"),
        (lambda: SegmentConfig(scales=(0.0, 0.5)), "--task.scales"),
    ],
)
def test_a_bad_value_names_its_flag(make, flag):
    with pytest.raises(UsageError, match=flag):
        make()
