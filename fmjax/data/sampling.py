"""In which order training meets its examples: an endless dataset of indices, each a function of the seed and its place.

So a position is one number, and the order is the same whatever the mesh, the threads and the processes. Imports no jax.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fmjax.config.data import DataConfig
from fmjax.data.example import Examples
from fmjax.errors import UsageError

if TYPE_CHECKING:
    # Grain imports jax where it finds it, so each function that uses it imports it itself
    import grain.python as grain

AHEAD = 64  # rounds that threads may work on at once


def shuffled(examples: Examples, seed: int) -> grain.MapDataset:
    """Every example once an epoch, each epoch in an order of its own."""
    import grain.python as grain

    return grain.MapDataset.source(range(len(examples))).seed(seed).shuffle().repeat()


def balanced(examples: Examples, seed: int) -> grain.MapDataset:
    """Every class once a round, in an order of its own; of each class its examples in turn, shuffled anew once all were
    seen. Classes without examples are in no round."""
    import grain.python as grain

    members = by_class(examples.labels)
    classes = len(members)
    lists = [*members, np.arange(classes)]

    # a class of three is gone through often; grain's own shuffle takes milliseconds for a number of so few
    def drawn(number: int, turn: int) -> np.ndarray:
        return np.random.default_rng((seed, number, turn)).permutation(lists[number])

    # kept apart: rounds, which are as long as there are classes, would fill the room of the classes' own orders
    order, rounds = lru_cache(classes + AHEAD)(drawn), lru_cache(AHEAD)(drawn)

    class Balanced(grain.MapDataset):
        def __len__(self) -> int:
            return sys.maxsize

        def __getitem__(self, place: Any) -> Any:
            # a round has every class once, so its number is how often each was drawn before
            drawn_before, slot = divmod(place, classes)
            number = int(rounds(classes, drawn_before)[slot])
            turn, position = divmod(drawn_before, len(members[number]))
            return int(order(number, turn)[position])

    return Balanced().seed(seed)


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of the examples of each class that has some."""
    # sorted once, as a look for each of 20,000 classes would go over all labels each time
    order = np.argsort(labels, kind="stable")
    starts = np.unique(labels[order], return_index=True)[1]
    return np.split(order, starts[1:])


SAMPLERS: dict[str, Callable[[Examples, int], grain.MapDataset]] = {
    "shuffled": shuffled,
    "balanced": balanced,
}


def check_sampling(examples: Examples, config: DataConfig) -> None:
    """Raises UsageError for a sampler that needs what the examples have not."""
    if config.sampling == "balanced" and not examples.labelled:
        raise UsageError(
            f"--data.sampling is 'balanced'; it must be 'shuffled' for {config.source}, whose examples are not of one "
            f"class each"
        )
