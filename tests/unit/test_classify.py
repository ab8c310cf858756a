"""The losses of classifiers: smoothed, weighted, of one class or of several, at another image size."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from jax.sharding import Mesh
from PIL import Image

from fmjax.config import (
    AugmentConfig,
    ClassifyConfig,
    DataConfig,
    ModelConfig,
    MultiLabelConfig,
    Recipe,
    RunConfig,
    SegmentConfig,
)
from fmjax.data.batches import train_batches
from fmjax.data.example import Examples, Splits
from fmjax.data.sources.digits import digits
from fmjax.data.split import divide
from fmjax.data.transforms import Views
from fmjax.engine.backbone import outlined
from fmjax.engine.evaluate import evaluate
from fmjax.engine.placement import on_mesh
from fmjax.engine.plan import make_task
from fmjax.errors import UsageError
from fmjax.preprocessing import preprocess_config
from fmjax.programs.finetune import planned
from fmjax.sharding import make_mesh
from fmjax.tasks.classify import Classify, class_weights
from fmjax.tasks.multilabel import MultiLabel
from fmjax.tasks.segment import Segment
from fmjax.tasks.task import Now, Task
from fmjax.trees import flat
from tests.support import torch_reference
from tests.support.runs import started

assert torch_reference  # declares what torchvision needs before timm is imported

IMAGES = preprocess_config("demo_vit_ti4.fashion_mnist")
CLASSES = tuple("abcde")
RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((8, 5)).astype(np.float32) * 3
LABELS = RNG.integers(0, 5, 8)
MANY = (RNG.random((8, 5)) < 0.4).astype(np.float32)


def loss_of(task: Task, monkeypatch, **fields: np.ndarray) -> tuple[float, float]:
    """(loss, accuracy) of a task whose network gives LOGITS."""
    model = SimpleNamespace(logits=lambda *_: jnp.asarray(LOGITS))
    monkeypatch.setattr(type(task), "joined", lambda *_: model)
    batch = {name: jnp.asarray(field) for name, field in fields.items()}
    batch |= {"image": jnp.zeros((8, 2, 2, 3)), "weight": jnp.ones(8)}
    now = Now(jnp.zeros((), jnp.int32), task.count(batch), jax.random.key(0), None)
    loss, logs = task.loss({}, batch, now)
    return float(loss), float(logs["accuracy"])


def classify(**options) -> Classify:
    return Classify(ClassifyConfig(**options), Views(IMAGES))


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_cross_entropy_and_its_smoothing_are_torchs(monkeypatch, smoothing):
    loss, accuracy = loss_of(classify(label_smoothing=smoothing), monkeypatch, label=LABELS)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS), torch.from_numpy(LABELS), label_smoothing=smoothing
    )
    assert loss == pytest.approx(float(expected), rel=1e-6)
    assert accuracy == (LOGITS.argmax(-1) == LABELS).mean()


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_bce_is_timms(monkeypatch, smoothing):
    from timm.loss import BinaryCrossEntropy

    found, _ = loss_of(classify(label_smoothing=smoothing, loss="bce"), monkeypatch, label=LABELS)
    timm = BinaryCrossEntropy(smoothing=smoothing)
    expected = timm(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert found == pytest.approx(float(expected), rel=1e-6)


def test_weights_are_factors_of_the_losses_of_their_classes(monkeypatch):
    weights = (0.5, 2.0, 1.0, 0.0, 3.0)
    found, _ = loss_of(replace(classify(), weights=weights), monkeypatch, label=LABELS)
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(LABELS),
        weight=torch.tensor(weights),
        reduction="sum",
    )
    assert found == pytest.approx(float(expected) / 8, rel=1e-6)


def test_a_mixture_has_the_weights_the_targets_and_the_accuracy_of_both(monkeypatch):
    task = replace(classify(mixup=0.8), weights=(0.5, 2.0, 1.0, 0.7, 3.0))
    share = np.full(8, 0.3, np.float32)
    mixture = {"label": LABELS, "other": LABELS[::-1].copy(), "share": share}
    loss, accuracy = loss_of(task, monkeypatch, **mixture)
    target = 0.3 * np.eye(5)[LABELS] + 0.7 * np.eye(5)[LABELS[::-1]]
    # as torch weighs targets that are shares: the loss of a class has the factor of that class
    expected = torch.nn.functional.cross_entropy(
        torch.from_numpy(LOGITS),
        torch.from_numpy(target.astype(np.float32)),
        weight=torch.tensor(task.weights),
        reduction="sum",
    )
    assert loss == pytest.approx(float(expected) / 8, rel=1e-6)
    found = LOGITS.argmax(-1)
    assert accuracy == pytest.approx(float(target[np.arange(8), found].mean()), rel=1e-6)


def test_several_labels_are_timms_answers(monkeypatch):
    task = MultiLabel(MultiLabelConfig(label_smoothing=0.1), Views(IMAGES))
    found, accuracy = loss_of(task, monkeypatch, labels=MANY)
    target = torch.from_numpy(MANY * 0.9 + 0.05)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(LOGITS), target
    )
    assert found == pytest.approx(float(expected), rel=1e-6)
    assert accuracy == pytest.approx(float(((LOGITS > 0) == MANY).mean()))
    mixture = {"other": MANY[::-1].copy(), "share": np.full(8, 0.3, np.float32)}
    mixed, _ = loss_of(task, monkeypatch, labels=MANY, **mixture)
    target = torch.from_numpy((0.3 * MANY + 0.7 * MANY[::-1]) * 0.9 + 0.05)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(
        torch.from_numpy(LOGITS), target
    )
    assert mixed == pytest.approx(float(expected), rel=1e-6)


def labelled(*counts: int) -> Examples:
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    return Examples({"image": lambda i: None}, labels, CLASSES[: len(counts)], str)


def test_balanced_weights_are_scikit_learns():
    from sklearn.utils.class_weight import compute_class_weight

    examples = labelled(60, 10, 30)
    expected = compute_class_weight("balanced", classes=np.arange(3), y=examples.labels)
    found = classify(class_weights="balanced").learning_from(examples).weights
    np.testing.assert_allclose(found, expected)
    assert np.mean([found[label] for label in examples.labels]) == pytest.approx(1)
    # a class without images moves no other
    assert class_weights(ClassifyConfig(class_weights="balanced"), labelled(60, 0, 30)) == (
        0.75,
        0.0,
        1.5,
    )
    assert classify().learning_from(examples).weights == ()


@pytest.mark.parametrize("weights", [(), (0.0, 0.0), (1.0, -1.0), (1.0, float("nan"))])
def test_weights_that_say_nothing_are_one_sentence(weights):
    with pytest.raises(UsageError, match=r"--task\.class-weights is .*finite factors"):
        ClassifyConfig(class_weights=weights)


def test_weights_of_another_length_are_one_sentence():
    task = classify(class_weights=(1.0, 2.0))
    assert task.learning_from(labelled(3, 3)).weights == (1.0, 2.0)
    with pytest.raises(UsageError, match=r"class-weights has 2 numbers; it must have 3, one for"):
        task.learning_from(labelled(3, 3, 3))


RUN = RunConfig(
    model=ModelConfig(name="demo_vit_ti4.fashion_mnist", dtype="float32"),
    data=DataConfig(crop_scale=1.0, flip=0.0),
    recipe=Recipe(lr=1e-3, warmup_steps=0),
    steps=4,
    batch_size=16,
)


def one_device() -> Mesh:
    return make_mesh(devices=jax.devices()[:1])


def test_another_image_size_trains_with_the_table_resampled_and_drop_path_on():
    # 9 x 6 patches in the place of 7 x 7
    model = replace(RUN.model, image_size=(36, 24))
    run = started(replace(RUN, model=model, drop_path=0.2), one_device())
    before = np.asarray(flat(run.state.params)["backbone.pos_embed"])
    assert before.shape[-2:] == (9 * 6, 96) or before.shape[-2:] == (9 * 6 + 1, 96)
    assert run.batch()["image"].shape == (16, 36, 24, 3)
    losses = run.losses(4)
    assert min(losses[1:]) < losses[0]
    assert not np.array_equal(before, np.asarray(flat(run.state.params)["backbone.pos_embed"]))


def of_parity() -> Examples:
    """Digits with three labels each: even, over 4, a multiple of 3; the last class is on none."""
    source = digits()
    values = source.labels
    labels = np.stack([values % 2 == 0, values > 4, values % 3 == 0, values < 0], 1)
    return replace(
        source,
        fields={**source.fields, "labels": lambda i: labels[i].astype(np.float32)},
        labels=np.zeros(len(values), np.int32),
        classes=("even", "over 4", "of 3", "none"),
        labelled=False,
    )


def test_a_network_learns_several_labels(monkeypatch):
    monkeypatch.setattr("tests.support.runs.open_source", lambda data: Splits(of_parity(), None))
    recipe = replace(RUN.recipe, lr=3e-3)
    config = replace(RUN, task=MultiLabelConfig(mixup=0.1), recipe=recipe, batch_size=32, steps=24)
    mesh = one_device()
    run = started(config, mesh)
    batches = train_batches(of_parity(), run.plan.task.view, config.data, batch_size=32, seed=0)
    losses = []
    for _ in range(config.steps):
        run.state, logs = run.functions.step(run.state, on_mesh(next(batches), mesh))
        losses.append(float(logs["loss"]))
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    scores = evaluate(
        run.plan,
        run.functions.outputs,
        run.state.params,
        of_parity().subset(np.arange(64)),
        mesh,
        data=config.data,
        batch_size=64,
        tell=print,
    )
    assert scores["mean_average_precision"] > 0.7
    told = run.plan.task.summary(scores.numbers, scores.rows, run.plan.labels)
    assert "over the 3 of 4 classes that are on an image" in told


def test_labels_of_another_length_are_one_sentence():
    task = MultiLabel(MultiLabelConfig(), Views(IMAGES))
    with pytest.raises(UsageError, match=r"the shape \(4,\); there must be one number for each"):
        task.learning_from(replace(of_parity(), classes=("a", "b")))


def test_what_a_run_asks_for_reaches_its_views():
    data = DataConfig(crop_scale=0.5, flip=0.1, erase=0.3, rand_ops=2)
    views = make_task(replace(RUN, data=data), IMAGES).views
    assert (views.crop_scale, views.flip, views.augment) == (0.5, 0.1, data)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rand_ops": 2}, r"--data\.rand-ops is 2; it must be 0 where examples have a mask"),
        ({"sampling": "balanced"}, r"--data\.sampling is 'balanced'; it must be 'shuffled' for"),
    ],
)
def test_what_masks_do_not_go_with_is_refused_before_weights_are_read(options, said):
    blank = np.zeros((8, 8, 3), np.uint8)
    examples = Examples(
        fields={"image": lambda i: blank, "mask": lambda i: blank[..., 0]},
        labels=np.zeros(4, np.int32),
        classes=("a", "b"),
        names=str,
        labelled=False,
    )
    config = replace(
        RUN, data=DataConfig(source="masks:x", **options), task=SegmentConfig(), export="none"
    )
    images = divide(Splits(examples, None), config.data, None)
    with pytest.raises(UsageError, match=said):
        planned(config, outlined(config, None), images)


def test_colours_and_flips_of_masked_examples_leave_the_mask_right():
    rng = np.random.default_rng(0)
    picture = rng.integers(0, 256, (40, 40, 3), np.uint8)
    example = {"image": Image.fromarray(picture), "mask": picture[..., 0].astype(np.uint16)}

    def seen(**options):
        views = Views(IMAGES, 1.0, 0.5, AugmentConfig(**options))
        return Segment(SegmentConfig(), views).view(example, np.random.default_rng(3))

    plain, flipped = seen(), seen(vertical_flip=1.0)
    assert np.array_equal(flipped["image"], plain["image"][::-1])
    assert np.array_equal(flipped["mask"], plain["mask"][::-1])
    coloured = seen(color_jitter=(0.4, 0.4, 0.4, 0.1))
    assert np.array_equal(coloured["mask"], plain["mask"])
    assert not np.array_equal(coloured["image"], plain["image"])
