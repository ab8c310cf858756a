"""Embeddings of a set -> which images look alike to a network, are far from all, or have a label in doubt."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from fmjax.data.check.kinds import Finding, listed
from fmjax.data.check.sets import Set
from fmjax.errors import escaped

NEIGHBOURS = 10  # of an image that are looked at
BLOCK = 1024  # images that are compared with all others at once
AGREE = 0.8  # of the neighbours, all of one other class: the label is in doubt
TO_SIGMA = 1.4826  # the median distance from the median -> the deviation of a normal distribution


@dataclass(frozen=True)
class Near:
    """Of each image its nearest ones, the nearest first: their places [N, K] and distances, 1 - cosine [N, K]."""

    places: np.ndarray
    distances: np.ndarray


# blocks of images as they are compared, each after how many it has, and how many there are in all -> the same blocks
Compared = Callable[[Iterator[tuple[int, Near]], int], Iterable[Near]]


def untold(blocks: Iterator[tuple[int, Near]], total: int) -> Iterable[Near]:
    """The blocks alone."""
    return (near for _, near in blocks)


def by_embedding(
    images: Set,
    features: Float[np.ndarray, "N E"],
    *,
    alike: float,
    unlike: float,
    compared: Compared = untold,
) -> list[Finding]:
    """What neighbours in an embedding tell of images. None of it can be seen in the pixels alone.

    alike: of the median distance to the nearest neighbour; pairs closer than it are named, so that the bound means the
    same for every network. unlike: robust deviations above the median of the mean distance to the nearest ones, beyond
    which an image is far from all others: the k-NN score of Ramaswamy et al. (2000), which Sun et al. (2022) found to
    serve for deep features. compared: passes the blocks of images on as they are compared with all others, which is
    N x N products and may take long.
    """
    # with one neighbour at least beside the image itself
    if len(features) < 3:
        return []
    near = _joined(compared(_nearest(features), len(features)))
    return [
        *_pairs(images, near, alike),
        *_doubtful(images, near),
        *_far(images, near, unlike),
    ]


def _nearest(features: np.ndarray) -> Iterator[tuple[int, Near]]:
    """The images in blocks, so that memory stays flat and it can be told how far they are."""
    from sklearn.neighbors import NearestNeighbors

    # one more than is wanted: an image is among its own neighbours
    count = min(NEIGHBOURS, len(features) - 1) + 1
    index = NearestNeighbors(n_neighbors=count, metric="cosine", algorithm="brute").fit(features)
    for start in range(0, len(features), BLOCK):
        distances, places = index.kneighbors(features[start : start + BLOCK])
        own = places == np.arange(start, start + len(places))[:, None]
        # where as many copies stand before it, it is not, and the last of them goes
        own[~own.any(-1), -1] = True
        others = (len(places), count - 1)
        near = Near(places[~own].reshape(others), distances[~own].reshape(others))
        yield len(places), near


def _joined(blocks: Iterable[Near]) -> Near:
    parts = list(blocks)
    places = np.concatenate([part.places for part in parts])
    return Near(places, np.concatenate([part.distances for part in parts]))


def _pairs(images: Set, near: Near, share: float) -> list[Finding]:
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


def _doubtful(images: Set, near: Near) -> list[Finding]:
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


def _far(images: Set, near: Near, bound: float) -> list[Finding]:
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
