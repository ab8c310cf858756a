"""Embeddings of a set -> which images look alike to a network, are far from all, or have a label in doubt."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fmjax.data.check.kinds import Finding, listed
from fmjax.data.check.sets import Set
from fmjax.errors import escaped

NEIGHBOURS = 10  # of an image that are looked at
AGREE = 0.8  # of the neighbours, all of one other class: the label is in doubt
TO_SIGMA = 1.4826  # the median distance from the median -> the deviation of a normal distribution


@dataclass(frozen=True)
class _Near:
    """Of each image its nearest ones, the nearest first: their places [N, K] and distances, 1 - cosine [N, K]."""

    places: np.ndarray
    distances: np.ndarray


def by_embedding(
    images: Set, features: Float[np.ndarray, "N E"], *, alike: float, unlike: float
) -> list[Finding]:
    """What neighbours in an embedding tell of images. None of it can be seen in the pixels alone.

    alike: of the median distance to the nearest neighbour; pairs closer than it are named, so that the bound means the
    same for every network. unlike: robust deviations above the median of the mean distance to the nearest ones, beyond
    which an image is far from all others: the k-NN score of Ramaswamy et al. (2000), which Sun et al. (2022) found to
    serve for deep features.
    """
    # with one neighbour at least beside the image itself
    if len(features) < 3:
        return []
    near = _nearest(features)
    return [
        *_pairs(images, near, alike),
        *_doubtful(images, near),
        *_far(images, near, unlike),
    ]


def _nearest(features: np.ndarray) -> _Near:
    from sklearn.neighbors import NearestNeighbors

    # without a question each is asked against all others; in pieces, so that memory stays flat
    count = min(NEIGHBOURS, len(features) - 1)
    index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(features)
    distances, places = index.kneighbors()
    return _Near(places, distances)


def _pairs(images: Set, near: _Near, share: float) -> list[Finding]:
    """Pairs that are closer than others are to their nearest."""
    bound = share * float(np.median(near.distances[:, 0]))
    ones, columns = np.nonzero(near.distances < bound)
    others = near.places[ones, columns]
    digests = images.facts["digest"]
    # the same pixels are a copy, and said already
    differ = (digests[ones] != digests[others]).any(-1)
    pairs = {(min(pair), max(pair)) for pair in zip(ones[differ], others[differ], strict=True)}
    across: list[str] = []
    within: list[str] = []
    for one, other in sorted(pairs):
        apart = images.parts[one] != images.parts[other]
        told = f"{images.name(int(other))} is like {images.name(int(one))}"
        (across if apart else within).append(told)
    return listed("alike-in-two-parts", across) + listed("alike", within)


def _doubtful(images: Set, near: _Near) -> list[Finding]:
    """Images whose neighbours agree on another class, and none of which has theirs."""
    if not images.labelled:
        return []
    labels = images.labels[near.places]
    without = np.flatnonzero(~(labels == images.labels[:, None]).any(-1))
    rows = []
    for index in without:
        votes = np.bincount(labels[index])
        share = votes.max() / labels.shape[1]
        if share >= AGREE:
            seems = escaped(images.classes[votes.argmax()], 60)
            rows.append(f"{images.with_class(int(index))} has {share:.0%} neighbours of {seems}")
    return listed("doubtful-label", rows)


def _far(images: Set, near: _Near, bound: float) -> list[Finding]:
    """Images that are far from all others."""
    mean = near.distances.mean(-1)
    middle = np.median(mean)
    spread = TO_SIGMA * np.median(np.abs(mean - middle))
    # where more than half are equal there is no spread to measure by
    if not spread:
        return []
    where = np.flatnonzero((mean - middle) / spread > bound)
    furthest = where[np.argsort(-mean[where], kind="stable")]
    rows = [
        f"{images.name(int(i))} (distance {mean[i]:.3f}, median {middle:.3f})" for i in furthest
    ]
    return listed("outlier", rows)
