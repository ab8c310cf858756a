"""Logistic regression on embeddings, by L-BFGS, and the choice of its penalty."""

from __future__ import annotations

import math
import warnings
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import Float

HELD_OUT = 0.2  # share of the images that a penalty is chosen on
# CLIP's search (arXiv:2103.00020 app. A.3): C from 1e-6 to 1e6, first every second power of ten, then about the best
# one in steps that halve, to eight a decade: 15 fits for what would be 97
FIRST = (-6.0, -4.0, -2.0, 0.0, 2.0, 4.0, 6.0)
STEPS, LARGEST = (1.0, 0.5, 0.25, 0.125), 6.0


def regression(c: float, max_iter: int) -> Any:
    """A classifier to be fitted; c: the inverse strength of its L2 penalty."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # standardised, as the penalty would otherwise weigh channels by their scale
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=max_iter))


def chosen_c(
    features: Float[np.ndarray, "N E"], labels: np.ndarray, *, seed: int, max_iter: int
) -> float:
    """The C whose classifier is right most often on a stratified fifth that it is not fitted to, the smallest of
    equals. Every class needs two images."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.model_selection import train_test_split

    # of many small classes a fifth may have fewer images than there are classes
    held_out = max(math.ceil(HELD_OUT * len(labels)), len(np.unique(labels)))
    fitted, asked, fitted_labels, asked_labels = train_test_split(
        features, labels, test_size=held_out, stratify=labels, random_state=seed
    )

    @cache
    def score(exponent: float) -> tuple[float, float]:
        # of equals the strongest penalty; a fit that has not converged is a candidate like any other
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            found = regression(10.0**exponent, max_iter).fit(fitted, fitted_labels)
        return float(found.score(asked, asked_labels)), -exponent

    best = max(FIRST, key=score)
    for step in STEPS:
        near = (best - step, best, best + step)
        best = max((one for one in near if abs(one) <= LARGEST), key=score)
    return 10.0**best


def fit(
    features: Float[np.ndarray, "N E"],
    labels: np.ndarray,
    *,
    c: float | None,
    seed: int,
    max_iter: int,
) -> tuple[Any, float]:
    """A classifier fitted to all images, and its C. c: None chooses it on a part of them first."""
    if c is None:
        c = chosen_c(features, labels, seed=seed, max_iter=max_iter)
    return regression(c, max_iter).fit(features, labels), c


def folds_accuracy(
    features: Float[np.ndarray, "N E"],
    labels: np.ndarray,
    *,
    folds: int,
    c: float | None,
    seed: int,
    max_iter: int,
) -> tuple[float, list[float]]:
    """The mean accuracy over stratified folds, and the C of each, chosen without the images that score it."""
    from sklearn.model_selection import StratifiedKFold

    # shuffled, as files lie class by class; by a seed, so that a rerun gives the same number
    parts = StratifiedKFold(folds, shuffle=True, random_state=seed).split(features, labels)
    scores, chosen = [], []
    for train, asked in parts:
        found, used = fit(features[train], labels[train], c=c, seed=seed, max_iter=max_iter)
        scores.append(float(found.score(features[asked], labels[asked])))
        chosen.append(used)
    return float(np.mean(scores)), chosen
