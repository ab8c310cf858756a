"""What the scores of a classifier mean where not every class has images."""

from __future__ import annotations

import numpy as np
import pytest

from fmjax.config.data import DataConfig
from fmjax.config.tasks import ClassifyConfig
from fmjax.data.example import Splits
from fmjax.data.sources.digits import digits
from fmjax.data.split import divide, write_split
from fmjax.data.transforms import Views
from fmjax.engine.evaluate import Scores
from fmjax.engine.plan import Learner
from fmjax.errors import DataError
from fmjax.preprocessing import preprocess_config
from fmjax.programs.evaluate import known, scored, summary
from fmjax.tasks.classify import Classify

CLASSES = tuple(str(i) for i in range(10))


def one_hot(*predicted: int) -> np.ndarray:
    """Logits that are sure of one of three classes."""
    return np.eye(3, dtype=np.float32)[list(predicted)] * 20


IMAGES = preprocess_config("demo_vit_ti4.fashion_mnist")
LEARNER = Learner(Classify(ClassifyConfig(), Views(IMAGES)), ("a", "b", "c"), IMAGES, {})


def scores(labels: list[int], logits: np.ndarray, unreadable: int = 0) -> Scores:
    rows = {"label": np.asarray(labels), "logits": logits, "index": np.arange(len(labels))}
    return Scores(LEARNER.task.scores(rows, LEARNER.labels), rows, unreadable)


def test_macro_f1_is_over_the_classes_that_have_images():
    found = scores([0, 0, 2, 2], one_hot(0, 0, 2, 1))
    # class 0: 1; class 2: 2 * 1 / (2 * 1 + 0 + 1); class 1 was predicted once and has no images
    assert found["macro_f1"] == pytest.approx((1 + 2 / 3) / 2)
    assert "macro F1 83.3% over the 2 of 3 classes that have images" in summary(LEARNER, found)
    assert "macro F1 100.0%, loss" in summary(LEARNER, scores([0, 1, 2], one_hot(0, 1, 2)))


def test_the_loss_knows_the_classes_without_images():
    one = scores([0, 0], one_hot(0, 0))
    assert one["loss"] == pytest.approx(2 * np.exp(-20), rel=1e-3)
    assert one["accuracy"] == 1.0


def test_images_that_could_not_be_read_are_counted_in_the_line():
    assert "(2 images, 3 unreadable ones left out)" in summary(
        LEARNER, scores([0, 1], one_hot(0, 1), 3)
    )


def test_labels_are_those_of_the_run_whatever_the_order_of_the_source():
    source = digits()
    turned = known(source, DataConfig(), CLASSES[::-1])
    assert np.array_equal(turned.labels, 9 - source.labels)
    with pytest.raises(DataError, match="2 classes that the run was not trained on: '0', '1'"):
        known(source, DataConfig(), CLASSES[2:])
    few = known(source.subset(np.flatnonzero(source.labels >= 2)), DataConfig(), CLASSES[2:])
    assert set(few.labels) == set(range(8))  # a class that has no images need not be known


def test_a_named_source_is_scored_whole_and_the_run_s_own_by_its_part(tmp_path, monkeypatch):
    own, other = DataConfig(source="tfds:mine"), DataConfig(source="digits")
    half = digits().subset(np.arange(900))
    parts = Splits(half.subset(np.arange(40, 900)), half.subset(np.arange(40)))
    whole = Splits(digits(), None)
    monkeypatch.setattr(
        "fmjax.programs.evaluate.open_source", lambda data, *_: whole if data == other else parts
    )
    write_split(tmp_path, divide(parts, own, None).split)
    # the names are those of the run's images, which says nothing where they are not those of files
    source, told = scored(tmp_path, other, own, CLASSES)
    assert (len(source), told) == (1797, ["scored  digits, all of it: 1,797 images of 10 classes"])
    assert scored(tmp_path, own, own, CLASSES)[1] == [
        "scored  tfds:mine, the images that the run held out: 40"
    ]
    theirs = scored(tmp_path, DataConfig(source="tfds:theirs"), own, CLASSES)
    assert theirs[1] == ["scored  tfds:theirs, its held-out part: 40 images of 10 classes"]
