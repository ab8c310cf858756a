"""Examples -> batches of arrays, by Grain: decoded by threads, the same for a seed whatever their number. No jax.

A batch has the fields that the view gives, stacked, and weight float32 [B], index int32 [B] and reason [B]. An
unreadable example is a blank one of weight 0 with a reason: it is left out of the loss and of every metric, and nothing
else moves. Padding has weight 0 and index -1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Example, Examples
from fmjax.data.images import Unreadable, read
from fmjax.errors import DataError, escaped

if TYPE_CHECKING:  # Grain imports jax where it finds it, so each function that uses it imports it itself
    import grain.python as grain

Batch = dict[str, Any]  # of numpy arrays
View = Callable[[Example, np.random.Generator | None], Example]  # decoded fields -> arrays; no rng: evaluation
REASON = "U200"  # as wide for all examples: batches are stacked into one array
HOST_FIELDS = ("index", "reason")  # of a batch: for a person, not for the network
BLACK = 64  # pixels a side of the picture whose view stands in for an unreadable one


def train_batches(
    examples: Examples, view: View, config: ImagesConfig, *, batch_size: int, seed: int
) -> grain.DatasetIterator:
    """An endless iterator of shuffled batches. Its get_state and set_state are the position in the data.

    view: gets the "image" as an upright RGB or grey PIL picture, every other field as it is, and a generator that is
    the same for a seed and a place in the data.
    """
    import grain.python as grain

    if len(examples) == 0:
        raise DataError("there are no training images")
    blank = _blank(examples, view, np.random.default_rng(0))

    def load(index: int, rng: np.random.Generator) -> Batch:
        return _row(examples, int(index), lambda example: view(example, rng), config=config, blank=blank)

    # indices are shuffled: an example itself is read by the thread that decodes it
    dataset = grain.MapDataset.source(range(len(examples))).seed(seed).shuffle().repeat().random_map(load)
    return iter(dataset.batch(batch_size).to_iter_dataset(_threads(config)))


def eval_batches(examples: Examples, view: View, config: ImagesConfig, *, batch_size: int) -> Iterator[Batch]:
    """Every example once, in order, as the view gives it without a generator; the last batch is padded."""
    import grain.python as grain

    blank = _blank(examples, view, None) if len(examples) else {}

    def load(index: int) -> Batch:
        return _row(examples, int(index), lambda example: view(example, None), config=config, blank=blank)

    dataset = grain.MapDataset.source(range(len(examples))).map(load).batch(batch_size)
    for batch in dataset.to_iter_dataset(_threads(config)):
        yield _padded(batch, batch_size)


def _threads(config: ImagesConfig) -> grain.ReadOptions:
    import grain.python as grain

    return grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=4 * config.threads)


def _row(
    examples: Examples, index: int, view: Callable[[Example], Example], *, config: ImagesConfig, blank: Example
) -> Batch:
    """An example as it stands in a batch."""
    example = examples.read(index)
    found, reason = _seen(example, view, config.max_pixels)
    if found is None:
        # the label of an unreadable image is known
        known = {name: example[name] for name, value in blank.items() if name in example and np.ndim(value) == 0}
        found = {**blank, **known}
    return {
        **found,
        "weight": np.float32(not reason),
        "index": np.int32(index),
        "reason": np.array(reason, REASON),
    }


def _seen(example: Example, view: Callable[[Example], Example], max_pixels: int) -> tuple[Example | None, str]:
    """The view of an example and ""; or None, and why there is none."""
    try:
        return view(_decoded(example, max_pixels)), ""
    except Unreadable as error:
        return None, error.reason
    except (ValueError, OverflowError, MemoryError) as error:  # of a transform, for a shape that it cannot take
        return None, escaped(f"it cannot be resized: {error or type(error).__name__}", 200)


def _decoded(example: Example, max_pixels: int) -> Example:
    return {**example, "image": read(example["image"], max_pixels=max_pixels)}


def _blank(examples: Examples, view: View, rng: np.random.Generator | None) -> Example:
    """Zeros in the shapes and kinds that the view gives: what it makes of a black picture says which."""
    example = {**examples.read(0), "image": Image.new("RGB", (BLACK, BLACK))}
    return {name: np.zeros_like(value) for name, value in view(example, rng).items()}


def _padded(batch: Batch, size: int) -> Batch:
    missing = size - len(batch["index"])
    if not missing:
        return batch
    filler = {"index": -1, "reason": ""}
    pad = {k: np.full((missing, *v.shape[1:]), filler.get(k, 0), v.dtype) for k, v in batch.items()}
    return {key: np.concatenate([value, pad[key]]) for key, value in batch.items()}


class BadImages:
    """Counts unreadable images, each once, and stops the run when there are too many.

    `add` returns the new ones' names, each with its reason, as they may be printed. get_state and set_state are what a
    run saves, so that one that goes on neither repeats the names nor counts anew.
    """

    def __init__(self, examples: Examples, limit: int) -> None:
        self.examples, self.limit = examples, limit
        self.indices: set[int] = set()

    def get_state(self) -> list[int]:
        """The indices of all that were unreadable so far, in order."""
        return sorted(self.indices)

    def set_state(self, state: Sequence[int]) -> None:
        self.indices = {int(index) for index in state}

    def add(self, batch: Batch) -> list[str]:
        bad = (batch["weight"] == 0) & (batch["index"] >= 0)
        found = dict(zip(batch["index"][bad].tolist(), batch["reason"][bad].tolist(), strict=True))
        new = {index: reason for index, reason in sorted(found.items()) if index not in self.indices}
        self.indices |= set(new)
        told = [f"{escaped(self.examples.names(index))}: {reason}" for index, reason in new.items()]
        if len(self.indices) > self.limit:
            raise DataError(
                f"{len(self.indices)} unreadable images, more than --data.max-bad {self.limit}; the last: "
                f"{'; '.join(told[-3:])}"
            )
        return told
