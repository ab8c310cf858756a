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
from fmjax.tasks.scores import (
    PerClass,
    calibration_error,
    classifier_scores,
    multi_label_scores,
    ranks,
)

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


RNG = np.random.default_rng(0)
LOGITS, TRUE = RNG.standard_normal((400, 8)).astype(np.float32) * 2, RNG.integers(0, 8, 400)


def test_top_5_is_scikit_learns_and_of_all_classes_where_there_are_fewer():
    from sklearn.metrics import top_k_accuracy_score

    expected = top_k_accuracy_score(TRUE, LOGITS, k=5, labels=range(8))
    assert classifier_scores(LOGITS, TRUE)["top5"] == pytest.approx(expected)
    assert classifier_scores(LOGITS[:, :3], TRUE % 3)["top5"] == 1
    # of equal logits the lower number comes first, as for the accuracy
    equal = np.zeros((3, 8), np.float32)
    assert ranks(equal, np.asarray([0, 4, 7])).tolist() == [0, 4, 7]


def test_the_first_guess_is_the_accuracy():
    found = classifier_scores(LOGITS, TRUE)
    assert (ranks(LOGITS, TRUE) < 1).mean() == found["accuracy"]


def test_the_calibration_error_is_that_of_its_paper():
    # two bins: 0.95 sure and right 3 times of 4, 0.42 sure and right 2 times of 4
    sure = np.asarray([0.95] * 4 + [0.42] * 4)
    right = np.asarray([1, 1, 1, 0, 1, 1, 0, 0], bool)
    assert calibration_error(sure, right) == pytest.approx((0.2 + 0.08) / 2)
    # in one bin what is too sure and what is not sure enough make up for each other
    both = np.asarray([0.935, 0.999])
    assert calibration_error(both, np.asarray([True, False])) == pytest.approx(0.467)
    assert calibration_error(np.asarray([1.0, 1.0]), np.asarray([True, True])) == 0


def test_a_network_that_was_trained_by_bce_is_read_so():
    found = classifier_scores(LOGITS, TRUE, "bce")
    shares = 1 / (1 + np.exp(-LOGITS.astype(np.float64)))
    target = np.eye(8)[TRUE]
    expected = -(target * np.log(shares) + (1 - target) * np.log(1 - shares)).mean()
    assert found["loss"] == pytest.approx(expected)
    plain = classifier_scores(LOGITS, TRUE)
    assert plain["loss"] != found["loss"]
    assert plain["accuracy"] == found["accuracy"]
    assert plain["calibration_error"] != found["calibration_error"]


def test_the_lines_of_steps_say_what_they_said():
    found = scores([0, 1, 2], one_hot(0, 1, 2))
    assert LEARNER.task.words(found.numbers).startswith("accuracy 100.0%, macro_f1 100.0%, loss ")
    assert "top5" not in LEARNER.task.words(found.numbers)
    assert "top-5 100.0%, calibration error 0.0%" in summary(LEARNER, found)


def test_each_class_has_a_row_and_the_worst_are_named(tmp_path):
    found = scores([0, 0, 2, 2], one_hot(0, 0, 2, 1))
    assert summary(LEARNER, found).endswith("; lowest F1 c 66.7%, a 100.0% (4 images)")
    # the last is a folder whose name is no UTF-8
    LEARNER.task.draw(found.rows, ("a", "b,", "caf\udce9"), tmp_path)
    assert (tmp_path / "per_class.csv").read_text().splitlines() == [
        "class,precision,recall,f1,images",
        "a,1.000000,1.000000,1.000000,2",
        '"b,",0.000000,0.000000,0.000000,0',
        r"caf\udce9,1.000000,0.500000,0.666667,2",
    ]


def test_several_labels_are_scored_over_the_classes_that_are_there():
    from sklearn.metrics import average_precision_score, f1_score

    labels = (RNG.random((400, 8)) < 0.3).astype(np.float32)
    labels[:, 5] = 0
    found = multi_label_scores(LOGITS, labels)
    there = [i for i in range(8) if i != 5]
    expected = average_precision_score(labels[:, there], LOGITS[:, there])
    assert found["mean_average_precision"] == pytest.approx(expected)
    answers = LOGITS[:, there] > 0
    assert found["macro_f1"] == pytest.approx(f1_score(labels[:, there], answers, average="macro"))
    with pytest.raises(DataError, match="none of the 400 images has a label"):
        multi_label_scores(LOGITS, np.zeros_like(labels))
    each = PerClass.of(labels > 0.5, LOGITS > 0, 8)
    assert each.images.tolist() == labels.sum(0).astype(int).tolist()
