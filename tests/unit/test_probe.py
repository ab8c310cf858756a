"""Logistic regression on embeddings: the penalty, and its choice."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from fmjax.config.features import ProbeConfig
from fmjax.errors import DataError
from fmjax.programs.features import Embeddings, check_classes
from fmjax.tasks import probe

RNG = np.random.default_rng(0)
LABELS = np.repeat([0, 1], 60)
# two channels that tell the classes apart among 60 that are noise
NOISY = RNG.normal(size=(120, 62)).astype(np.float32)
NOISY[:, :2] += 1.2 * LABELS[:, None]


def test_the_search_tries_fifteen_of_97_and_finds_the_best_of_its_steps(monkeypatch):
    tried = []

    class Peaked:
        """As right as its C is near to 10 ** 1.375."""

        def __init__(self, c):
            self.c = c

        def fit(self, features, labels):
            return self

        def score(self, features, labels):
            return -abs(np.log10(self.c) - 1.375)

    def regression(c, max_iter):
        tried.append(c)
        return Peaked(c)

    monkeypatch.setattr(probe, "regression", regression)
    found = probe.chosen_c(NOISY, LABELS, seed=0, max_iter=10)
    assert np.log10(found) == pytest.approx(1.375)
    assert len(tried) == len(set(tried)) == 15
    monkeypatch.setattr(Peaked, "score", lambda *_: 1.0)
    assert probe.chosen_c(NOISY, LABELS, seed=0, max_iter=10) == pytest.approx(1e-6)


def test_a_swept_penalty_does_better_on_others_than_a_weak_one():
    found = probe.chosen_c(NOISY, LABELS, seed=0, max_iter=200)
    assert found == probe.chosen_c(NOISY, LABELS, seed=0, max_iter=200)
    assert found < 1
    asked = RNG.normal(size=(400, 62)).astype(np.float32)
    expected = np.repeat([0, 1], 200)
    asked[:, :2] += 1.2 * expected[:, None]
    ours, c = probe.fit(NOISY, LABELS, c=None, seed=0, max_iter=200)
    weak, _ = probe.fit(NOISY, LABELS, c=1e4, seed=0, max_iter=200)
    assert c == found
    assert ours.score(asked, expected) > weak.score(asked, expected)


def test_folds_without_a_sweep_are_scikit_learn_s():
    folds = StratifiedKFold(3, shuffle=True, random_state=4)
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=100))
    expected = cross_val_score(model, NOISY, LABELS, cv=folds).mean()
    found, used = probe.folds_accuracy(NOISY, LABELS, folds=3, c=0.1, seed=4, max_iter=100)
    assert found == pytest.approx(float(expected))
    assert used == [0.1] * 3


@pytest.mark.parametrize(
    ("counts", "alone", "folds"), [((9, 1), False, 5), ((9, 3), True, 2)], ids=["val", "folds"]
)
def test_a_sweep_needs_two_images_of_every_class(counts, alone, folds):
    labels = np.repeat([0, 1], counts)
    images = Embeddings(np.zeros((len(labels), 2), np.float32), labels, [], ("many", "few"))
    with pytest.raises(DataError, match=r"--sweep .* 'few' has \d readable ones"):
        check_classes(ProbeConfig(sweep=True, folds=folds), images, alone=alone)
    check_classes(ProbeConfig(folds=folds), images, alone=alone)
