"""In which order training meets its examples: an endless dataset of indices, each a function of the seed and its place.

So a position is one number, and the order is the same whatever the mesh, the threads and the processes. Imports no jax.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from fmjax.config.data import DataConfig
from fmjax.data.example import Examples, Stream
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


@dataclass(frozen=True)
class Epoch:
    """The order of the row groups of a stream in an epoch, and its windows: groups that follow each other, as many as
    first fill `Stream.window` bytes."""

    windows: list[np.ndarray]  # the groups of each, as places among those that have examples
    ends: np.ndarray  # int64 [windows]: how many examples there are until the end of each


def streamed(examples: Examples, seed: int) -> grain.MapDataset:
    """Every example once an epoch: the row groups in an order that each epoch draws anew, and of a window of them
    (`--data.stream-window-mib`) all examples in one shuffle. So what has to be here at once is bounded, and the order
    is still a function of the seed and the place alone."""
    import grain.python as grain

    stream = _stream_of(examples)
    members, numbers = groups_of(stream)
    count = len(examples)
    epochs = lru_cache(2)(lambda epoch: epoch_of(stream, members, (seed, epoch)))

    # a window is drawn once for all of its places, and its groups are asked for when the first of them is
    @lru_cache(4)
    def window(epoch: int, number: int) -> np.ndarray:
        found = epochs(epoch).windows[number]
        for group in found:
            stream.ahead(int(numbers[group]))
        rows = np.concatenate([members[group] for group in found])
        return np.random.default_rng((seed, epoch, number + 1)).permutation(rows)

    # once for each step, though every row of a window comes by here
    @lru_cache(AHEAD)
    def prepare(epoch: int, number: int, step: int, steps: int) -> None:
        windows = epochs(epoch).windows
        last = number + 1 == len(windows)
        following = epochs(epoch + 1).windows[0] if last else windows[number + 1]
        start, stop = (place * len(following) // steps for place in (step, step + 1))
        for group in following[start:stop]:
            stream.ahead(int(numbers[group]))

    class Streamed(grain.MapDataset):
        def __len__(self) -> int:
            return sys.maxsize

        def __getitem__(self, place: Any) -> Any:
            epoch, position = divmod(int(place), count)
            number = int(np.searchsorted(epochs(epoch).ends, position, side="right"))
            rows = window(epoch, number)
            row = position - int(epochs(epoch).ends[number]) + len(rows)
            # as this window is used up the next one comes, so that the network is as busy all the time
            steps = min(AHEAD, len(rows))
            prepare(epoch, number, row * steps // len(rows), steps)
            return int(rows[row])

    return Streamed().seed(seed)


def groups_of(stream: Stream) -> tuple[list[np.ndarray], np.ndarray]:
    """(the indices of the examples of each group that has some, the number of each of these groups)."""
    return by_class(stream.groups), np.unique(stream.groups)


def epoch_of(stream: Stream, members: Sequence[np.ndarray], seed: tuple[int, ...]) -> Epoch:
    """The row groups in the order of a seed, and where a window ends. members: as of `groups_of`."""
    order = np.random.default_rng(seed).permutation(len(members))
    weights = np.asarray([stream.weights[rows[0]] for rows in members], np.int64)[order]
    # a group is in the window that its first byte is in, so that the last one of a window may go beyond it
    before = np.cumsum(weights) - weights
    starts = np.flatnonzero(np.diff(before // stream.window, prepend=-1))
    counts = np.asarray([len(rows) for rows in members], np.int64)[order]
    return Epoch(np.split(order, starts[1:]), np.add.reduceat(counts, starts).cumsum())


def _stream_of(examples: Examples) -> Stream:
    if examples.stream is None:
        raise ValueError("these examples are no stream")
    return examples.stream


def mixing_note(examples: Examples) -> list[str]:
    """What is said of a stream whose windows have few of the classes, as rows of a class lie together."""
    stream, labels = examples.stream, examples.labels
    if stream is None or not examples.labelled:
        return []
    members, _ = groups_of(stream)
    # the first window of a run is as good as any
    [first, *_] = epoch_of(stream, members, (0, 0)).windows
    window = len(np.unique(np.concatenate([labels[members[group]] for group in first])))
    present = len(np.unique(labels))
    if window * 2 > present:
        return []
    return [
        f"the rows of a class lie together: a window of {stream.window >> 20:,} MiB has {window:,} of {present:,} "
        f"classes, and so have its batches; raise --data.stream-window-mib, or leave --data.stream out"
    ]


def by_class(labels: np.ndarray) -> list[np.ndarray]:
    """The indices of the examples of each class that has some."""
    # sorted once, as a look for each of 20,000 classes would go over all labels each time
    order = np.argsort(labels, kind="stable")
    starts = np.unique(labels[order], return_index=True)[1]
    return np.split(order, starts[1:])


def order_of(examples: Examples, config: DataConfig, seed: int) -> grain.MapDataset:
    """The indices of the examples in the order of training: that of a stream, or by `--data.sampling`."""
    if examples.stream is not None:
        return streamed(examples, seed)
    return SAMPLERS[config.sampling](examples, seed)


SAMPLERS: dict[str, Callable[[Examples, int], grain.MapDataset]] = {
    "shuffled": shuffled,
    "balanced": balanced,
}


def check_sampling(examples: Examples, config: DataConfig) -> None:
    """Raises UsageError for a sampler that needs what the examples have not."""
    if config.sampling == "balanced" and examples.stream is not None:
        raise UsageError(
            "--data.sampling is 'balanced'; it must be 'shuffled' with --data.stream, which has a few row groups here "
            "at a time"
        )
    if config.sampling == "balanced" and not examples.labelled:
        raise UsageError(
            f"--data.sampling is 'balanced'; it must be 'shuffled' for {config.source}, whose examples are not of one "
            f"class each"
        )
