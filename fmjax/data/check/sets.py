"""Facts of single pictures -> what a set has twice, and how its classes are filled."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from fmjax.data.check.kinds import Finding, listed
from fmjax.data.check.pictures import KINDS
from fmjax.errors import escaped

Pairs = dict[str, list[tuple[int, int]]]  # kind -> (first image, the other)

BANDS = np.arange(0, 64, 16, dtype=np.uint64)  # four of 16 bits
BAND = np.uint64(0xFFFF)
MOST_BITS = (
    2  # by which two pictures of one look differ; three more than bands would not all be found
)
MOST_COLOUR = 6  # of 255, in each channel
MOST_SHAPE = 0.02  # by which one may be longer than the other, of its own shape
LEAST_SIDE = 32  # of a picture whose look tells anything
LEAST_BITS = (
    8  # bright ones and dark ones in a look that tells anything: a flat one is like any other
)
MOST_ALIKE = 64  # of one band that are compared with each other


@dataclass(frozen=True)
class Set:
    """All readable images: facts [N], and of each its part, label and name."""

    facts: np.ndarray
    parts: np.ndarray  # the number of each one's part
    labels: np.ndarray
    classes: tuple[str, ...]
    labelled: bool
    name: Callable[[int], str]

    def with_class(self, index: int) -> str:
        label = self.labels[index]
        return f"{self.name(index)} ({escaped(self.classes[label], 60)})"

    def with_size(self, index: int) -> str:
        facts = self.facts[index]
        return f"{self.name(index)} ({facts['width']} x {facts['height']})"


def of_pictures(images: Set) -> list[Finding]:
    """What single pictures are: one finding a kind."""
    out = []
    for number, kind in enumerate(KINDS):
        bit = np.uint32(1 << number)
        where = np.flatnonzero(images.facts["kinds"] & bit)
        sized = kind in ("small", "large", "long")
        named = images.with_size if sized else images.name
        if len(where):
            out.append(Finding(kind, len(where), _each(named, where)))
    return out


def _each(named: Callable[[int], str], where: np.ndarray) -> Callable[[int], str]:
    return lambda i: named(int(where[i]))


def copies(images: Set) -> list[Finding]:
    """Images that are the same pixel by pixel, whatever file they are in."""
    digests = images.facts["digest"]
    pairs: Pairs = {"in-two-parts": [], "two-labels": [], "copy": []}
    for group in _groups(digests[:, 0], digests[:, 1]):
        first = int(group[0])
        for other in map(int, group[1:]):
            for kind in _relations(images, first, other):
                pairs[kind].append((first, other))
    return _told(images, pairs)


def _groups(*keys: np.ndarray) -> Iterator[np.ndarray]:
    """Indices with equal keys, in order; only those of several."""
    order = np.lexsort((np.arange(len(keys[0])), *keys))
    changes = np.zeros(max(len(order) - 1, 0), bool)
    for key in keys:
        changes |= key[order][1:] != key[order][:-1]
    # millions of groups of one are never looked at
    starts = np.flatnonzero(np.concatenate([[True], changes]))
    lengths = np.diff(np.append(starts, len(order)))
    for start, length in zip(starts[lengths > 1], lengths[lengths > 1], strict=True):
        yield np.sort(order[start : start + length])


def _relations(images: Set, one: int, other: int) -> list[str]:
    across = images.parts[one] != images.parts[other]
    found = ["in-two-parts" if across else "copy"]
    if images.labelled and images.labels[one] != images.labels[other]:
        # worse than a copy within a part, but not than one across
        found = [*found, "two-labels"] if across else ["two-labels"]
    return found


def _told(images: Set, pairs: Pairs, verb: str = "is") -> list[Finding]:
    return [
        Finding(kind, len(some), _row(images, some, kind, verb))
        for kind, some in pairs.items()
        if some
    ]


def _row(images: Set, some: list[tuple[int, int]], kind: str, verb: str) -> Callable[[int], str]:
    """How each pair is worded, when it is asked for."""
    named = images.with_class if kind == "two-labels" else images.name

    def told(i: int) -> str:
        one, other = some[i]
        return f"{named(other)} {verb} {named(one)}"

    return told


def near_copies(images: Set) -> list[Finding]:
    """Images that look alike and are not the same: saved anew by a lossy format, or scaled.

    By the difference hash, the average colour and the shape. Two that differ in at most two bits share at least two of
    four bands, so that only those of one band are compared.
    """
    candidates = np.flatnonzero(_is_telling(images.facts))
    seen: set[tuple[int, int]] = set()
    for shift in BANDS:
        seen.update(_alike(images.facts, candidates, shift))
    # in the order of the images, whichever band has shown them
    across: list[tuple[int, int]] = []
    within: list[tuple[int, int]] = []
    for one, other in sorted(seen):
        apart = images.parts[one] != images.parts[other]
        (across if apart else within).append((one, other))
    pairs = {"nearly-in-two-parts": across, "nearly-a-copy": within}
    return _told(images, pairs, "is like")


def _is_telling(facts: np.ndarray) -> np.ndarray:
    """Whether the look of each says anything: a small or a smooth picture looks like many others."""
    ones = np.bitwise_count(facts["look"])
    shorter = np.minimum(facts["width"], facts["height"])
    enough = (ones >= LEAST_BITS) & (ones <= 64 - LEAST_BITS)
    return enough & (shorter >= LEAST_SIDE)


def _alike(
    facts: np.ndarray, candidates: np.ndarray, shift: np.uint64
) -> Iterator[tuple[int, int]]:
    """The pairs of one band that look alike. In a large band each is compared with the next ones by their look."""
    looks = facts["look"][candidates]
    bands = (looks >> shift) & BAND
    order = np.lexsort((looks, bands))
    looks, bands, candidates = looks[order], bands[order], candidates[order]
    # all with their neighbours, then with those after them: a loop over bands would take minutes for a million
    for step in range(1, MOST_ALIKE):
        together = bands[step:] == bands[:-step]
        if not together.any():
            return
        bits = np.bitwise_count(looks[step:] ^ looks[:-step])
        where = np.flatnonzero(together & (bits <= MOST_BITS))
        ones, others = candidates[where], candidates[where + step]
        close = _are_close(facts[ones], facts[others])
        for one, other in zip(ones[close].tolist(), others[close].tolist(), strict=True):
            yield min(one, other), max(one, other)


def _are_close(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Whether two pictures of like looks have one colour and shape, for each of two rows of FACTS."""
    colours = np.subtract(one["colour"], other["colour"], dtype=np.int16)
    shapes = _shape(one) / _shape(other)
    # the same pixels are a copy, and said already
    differ = (one["digest"] != other["digest"]).any(-1)
    alike = np.abs(colours).max(-1) <= MOST_COLOUR
    return differ & alike & (np.abs(shapes - 1) <= MOST_SHAPE)


def _shape(facts: np.ndarray) -> np.ndarray:
    return facts["width"] / facts["height"]


def balance(
    counts: dict[str, np.ndarray], classes: tuple[str, ...], ratio: float, *, split: bool
) -> list[Finding]:
    """What the images of each class come to. counts: [classes] of each part, readable ones. split: a val part is drawn
    from train, with the same share of every class."""
    train, val = counts["train"], counts.get("val")
    named = [escaped(name, 60) for name in classes]
    # each of two parts needs an image of every class
    kind = "class-of-one-image" if split else "class-with-one-image"
    out = listed(kind, [named[i] for i in np.flatnonzero(train == 1)])
    if val is not None:
        missing = np.flatnonzero((val == 0) & (train > 0))
        out += listed("class-not-in-val", [named[i] for i in missing])
    # a class without images is another finding
    largest = int(train.max(initial=0))
    rare = np.flatnonzero((train > 0) & (train * ratio < largest))
    told = [f"{named[i]} has {train[i]:,} of {largest:,}" for i in rare]
    return out + listed("imbalance", told)
