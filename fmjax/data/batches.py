"""Examples -> batches of arrays: decoded by threads, the same for a seed whatever their number. No jax.

A batch has the fields that the view gives, stacked, and weight float32 [B], index int32 [B] and reason [B]. An
unreadable example is a blank one of weight 0 with a reason: it is left out of the loss and of every metric, and nothing
else moves. Padding has weight 0 and index -1.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from fmjax.config.data import DataConfig, ImagesConfig
from fmjax.data import masks
from fmjax.data.example import Example, Examples
from fmjax.data.filling import Batch, Batches, Row, unchanged
from fmjax.data.images import Unreadable, read
from fmjax.data.masks import WrongMask
from fmjax.data.sampling import order_of
from fmjax.data.transforms import Views
from fmjax.data.workers import Ticket, Workers
from fmjax.errors import DataError, amount, escaped

if TYPE_CHECKING:
    # Grain imports jax where it finds it, so each function that uses it imports it itself
    import grain.python as grain

Rng = np.random.Generator
View = Callable[[Example, Rng | None], Example]  # decoded fields -> arrays; no rng: evaluation
REASON = "U200"  # as wide for all examples: batches are stacked into one array
HOST_FIELDS = ("index", "reason")  # of a batch: for a person, not for the network
FEW_BAD = 3  # unreadable images that are no share of a set yet, however small it is
BLACK = 64  # pixels a side of the picture whose view stands in for an unreadable one


def train_batches(
    examples: Examples,
    view: View,
    config: DataConfig,
    *,
    batch_size: int,
    seed: int,
    rows: Sequence[int] | None = None,
    steps: int | None = None,
) -> Batches:
    """An iterator of batches, shuffled or with every class as often. Its get_state and set_state are the position in
    the data.

    rows: only these of every batch are read and given, as they are in the whole batch. The position counts whole
    batches, so that it is the same whoever reads which part of them. steps: how many batches there are, behind which
    nothing is read; None: no end.

    view: gets the "image" as an upright RGB or grey PIL picture, the "mask" as uint16 [H W], `masks.IGNORED` where a
    pixel is of no class, every other field as it is, and a generator that is the same for a seed and a place in the
    data. Raises DataError, from the batch that meets it, for a mask that is wrong.
    """
    if len(examples) == 0:
        raise DataError("there are no training images")
    # any generator will do: only the shapes of the view count, not what it draws
    loader = Loader.of(examples, view, config, rng=np.random.default_rng(0))
    reading = Reading.of(loader, config.workers)
    # indices are drawn: an example itself is read by the thread or process that decodes it
    drawn = order_of(examples, config, seed)
    # rows are chosen after the random numbers of each place are fixed
    chosen = _of_every_batch(drawn.random_map(reading.row), batch_size, rows)
    size = batch_size if rows is None else len(rows)
    iterator = reading.batches(chosen, size, count=sys.maxsize if steps is None else steps)
    # at the latest when Python ends, as an endless iterator has no end of its own
    weakref.finalize(iterator, reading.close)
    return iterator


def _of_every_batch(
    places: grain.MapDataset, batch_size: int, rows: Sequence[int] | None
) -> grain.MapDataset:
    """An endless dataset with some rows of each batch only."""
    import grain.python as grain

    if rows is None:
        return places

    class Rows(grain.MapDataset):
        def __len__(self) -> int:
            return len(places) // batch_size * len(rows)

        def __getitem__(self, index: Any) -> Any:
            batch, row = divmod(index, len(rows))
            return places[batch * batch_size + rows[row]]

    return Rows(places)


def eval_batches(
    examples: Examples,
    view: View,
    config: ImagesConfig,
    *,
    batch_size: int,
    rows: Sequence[int] | None = None,
) -> Iterator[Batch]:
    """Every example once, in order, as the view gives it without a generator; the last batch is padded. rows: only
    these of every batch."""
    if len(examples) == 0:
        return
    loader = Loader.of(examples, view, config, rng=None)
    indices = eval_indices(len(examples), batch_size)
    chosen = indices if rows is None else indices[:, rows]
    reading = Reading.of(loader, config.workers)
    places = Padded(reading, chosen.ravel().tolist())
    batches = reading.batches(places, chosen.shape[1], count=len(chosen))
    # an evaluation may be left before its end, as a run is that is asked to stop
    try:
        yield from batches
    finally:
        batches.close()
        reading.close()


def eval_indices(count: int, batch_size: int) -> np.ndarray:
    """Which examples are in each batch of an evaluation: int32 [batches, batch_size], -1 for padding."""
    indices = np.arange(-(-count // batch_size) * batch_size, dtype=np.int32)
    return np.where(indices < count, indices, -1).reshape(-1, batch_size)


@dataclass(frozen=True)
class Reading:
    """How rows are read: by the threads that ask for them, or for those by worker processes."""

    loader: Loader
    workers: Workers | None

    @classmethod
    def of(cls, loader: Loader, count: int) -> Reading:
        if not count:
            return cls(loader, None)
        return cls(loader, Workers(loader.row_or_padding, loader.row_or_padding(-1), count))

    def row(self, index: int, rng: Rng | None = None) -> Any:
        """What is drawn at a place in the data: the row itself, or what a worker needs to make it."""
        return Ticket.of(index, rng) if self.workers else self.loader.row_or_padding(index, rng)

    def batches(self, places: Places, size: int, *, count: int) -> Batches:
        """What is drawn at the places, so many at a time as arrays. count: batches, at most."""

        def start(place: int, row: Row) -> None:
            drawn = places[place]
            if self.workers is None:
                row.put(drawn)
            else:
                self.workers.read(drawn, row)

        like = self.loader.row_or_padding(-1)
        told = self.workers.told if self.workers else unchanged
        threads = self.loader.config.threads
        return Batches(
            start, like, size, count=min(len(places) // size, count), threads=threads, told=told
        )

    def close(self) -> None:
        if self.workers is not None:
            self.workers.close()


class Places(Protocol):
    """What is drawn at each place in the data."""

    def __len__(self) -> int: ...

    def __getitem__(self, place: int, /) -> Any: ...


@dataclass(frozen=True)
class Padded:
    """The rows of some examples; of index -1 padding."""

    reading: Reading
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> Any:
        return self.reading.row(self.indices[place])


@dataclass(frozen=True)
class Loader:
    """An index -> what stands in a batch. Threads call it, of this process or of workers."""

    examples: Examples
    view: View
    config: ImagesConfig
    blank: Example  # arrays that stand for an example which cannot be read
    # of a picture's size, how many times smaller a JPEG may be decoded
    reduction: Callable[[tuple[int, int]], int] | None = None

    @classmethod
    def of(cls, examples: Examples, view: View, config: ImagesConfig, *, rng: Rng | None) -> Loader:
        """With the blank that the view makes: in training, where it gets a generator, it may be another one."""
        blank = _blank(examples, view, rng)
        # in training alone; and a mask has the size of its picture
        if rng is None or not isinstance(view, Views) or "mask" in blank:
            return cls(examples, view, config, blank)
        return cls(examples, view, config, blank, view.reduction)

    def row(self, index: int, rng: Rng | None = None) -> Batch:
        """The view of an example, its weight and index, and the reason where the weight is 0."""
        example = self.examples.read(int(index))
        found, reason = self._seen(int(index), example, rng)
        weight = 0 if found is None else 1
        if found is None:
            # numbers, as the label of an unreadable image, are known all the same
            numbers = {name for name, value in self.blank.items() if np.ndim(value) == 0}
            known = {name: example[name] for name in numbers & set(example)}
            found = {**self.blank, **known}
        return {
            **found,
            "weight": np.float32(weight),
            "index": np.int32(index),
            "reason": np.array(reason, REASON),
        }

    def row_or_padding(self, index: int, rng: Rng | None = None) -> Batch:
        """The same; for index -1 a blank of weight 0."""
        if index >= 0:
            return self.row(index, rng)
        rest = {"weight": np.float32(0), "index": np.int32(-1), "reason": np.array("", REASON)}
        return {**self.blank, **rest}

    def _seen(self, index: int, example: Example, rng: Rng | None) -> tuple[Example | None, str]:
        """The view of an example and ""; or None, and why there is none."""
        try:
            found = self.view(self._decoded(index, example), rng)
            check_view(found, self.blank)
            return found, ""
        except (WrongMask, WrongView):
            # no unreadable picture: the run stops and says what is wrong
            raise
        except Unreadable as error:
            return None, error.reason
        except (ValueError, OverflowError, MemoryError) as error:
            # of a view, for a shape that it cannot take
            return None, escaped(f"it cannot be resized: {error or type(error).__name__}", 200)

    def _decoded(self, index: int, example: Example) -> Example:
        """The example with a picture for its image and an array of checked values for its mask, where it has one."""
        config = self.config
        image = read(example["image"], max_pixels=config.max_pixels, reduction=self.reduction)
        decoded = {**example, "image": image}
        if "mask" in example:
            name = self.examples.names(index)
            found = masks.read(example["mask"], name=name, max_pixels=config.max_pixels)
            classes = len(self.examples.classes)
            masks.check(found, decoded["image"].size, classes=classes, ignore=config.ignore)
            decoded["mask"] = masks.marked(found, ignore=config.ignore)
        return decoded


class WrongView(DataError):
    """A view that does not give every example the same arrays."""


def check_view(found: Any, blank: Example | None = None) -> None:
    """Raises WrongView for what cannot be stacked into a batch. blank: what every example has to be like."""
    # Grain stacks what it is given field by field, and would name neither the task nor the field
    if not isinstance(found, dict):
        raise WrongView(
            f"the task's view gives {type(found).__name__}; it must give a dict of arrays"
        )
    for name, value in found.items():
        if name in ("weight", *HOST_FIELDS):
            raise WrongView(
                f"the task's view gives a field {name!r}, which every batch has; call it otherwise"
            )
        if not isinstance(value, np.ndarray | np.generic | int | float):
            raise WrongView(
                f"the task's view gives {name!r} as {type(value).__name__}; it must be an array of numbers, as "
                f"self.views makes of a picture called image"
            )
    # one array a field: a view that fits a picture's own size cannot be stacked with another picture's
    shapes = [
        {name: np.shape(value) for name, value in example.items()}
        for example in (found, blank or found)
    ]
    if shapes[0] != shapes[1]:
        raise WrongView(
            f"the task's view gives arrays of {shapes[0]} for one example and of {shapes[1]} for another; they must "
            f"be alike"
        )


def _blank(examples: Examples, view: View, rng: Rng | None) -> Example:
    """Zeros in the shapes and kinds that the view gives a black picture; no pixel of a mask is of a class."""
    black = Image.new("RGB", (BLACK, BLACK))
    example = {**examples.read(0, without="image"), "image": black}
    if "mask" in example:
        example["mask"] = np.full((BLACK, BLACK), masks.IGNORED, masks.VALUE)
    seen = view(example, rng)
    check_view(seen)
    blank = {name: np.zeros_like(value) for name, value in seen.items()}
    if "mask" in blank:
        blank["mask"] = np.full_like(seen["mask"], masks.IGNORED)
    return blank


def blank_batch(examples: Examples, view: View, config: ImagesConfig, *, batch_size: int) -> Batch:
    """What evaluation gives a network where nothing can be read: it tells the shapes and kinds of the fields."""
    row = _blank(examples, view, None) | {"weight": np.float32(0)}
    # one row that is seen as many: the batch of a large mesh would take gigabytes
    return {name: np.broadcast_to(x, (batch_size, *np.shape(x))) for name, x in row.items()}


def unreadable(batch: Batch) -> dict[int, str]:
    """The indices of the images of a batch that could not be read, and why."""
    # padding has weight 0 too, and index -1
    bad = (batch["weight"] == 0) & (batch["index"] >= 0)
    indices, reasons = (batch[name][bad].tolist() for name in HOST_FIELDS)
    return dict(zip(indices, reasons, strict=True))


class BadImages:
    """Counts unreadable images, each once, and stops the run when there are too many: more than `limit`, or than a
    share of the set.

    `add` returns the new ones' names, each with its reason, as they may be printed. get_state and set_state are what a
    run saves, so that one that goes on neither repeats the names nor counts anew.
    """

    def __init__(self, examples: Examples, limit: int, share: float = 1.0) -> None:
        self.examples, self.limit, self.share = examples, limit, share
        self.indices: set[int] = set()

    def get_state(self) -> list[int]:
        """The indices of all that were unreadable so far, in order."""
        return sorted(self.indices)

    def set_state(self, state: Sequence[int]) -> None:
        self.indices = {int(index) for index in state}

    def name(self, batch: Batch, tell: Callable[[str], None]) -> None:
        """Counts the unreadable images of a batch, and tells each new one in a line."""
        for found in self.add(batch):
            tell(f"unreadable image left out: {found}")

    def add(self, batch: Batch) -> list[str]:
        return self.count(unreadable(batch))

    def count(self, found: Mapping[int, str]) -> list[str]:
        """As `add`, for indices and their reasons."""
        # training meets every example again and again: each is named, and counts, once
        new = {
            index: reason for index, reason in sorted(found.items()) if index not in self.indices
        }
        self.indices |= set(new)
        names = {index: escaped(self.examples.names(index)) for index in new}
        told = [f"{names[index]}: {reason}" for index, reason in new.items()]
        if len(self.indices) > self.limit:
            raise DataError(
                f"{amount(len(self.indices), 'unreadable image')}, more than --data.max-bad {self.limit}; the last: "
                f"{'; '.join(told[-3:])}"
            )
        found_share = len(self.indices) / len(self.examples)
        if found_share > self.share and len(self.indices) >= FEW_BAD:
            raise DataError(
                f"{len(self.indices)} of {len(self.examples)} images cannot be read ({found_share:.0%}), more than "
                f"--data.max-bad-share {self.share:g} of them; the last: {'; '.join(told[-3:])}"
            )
        return told

    def summary(self) -> list[str]:
        """What of a set could not be read, in lines for the end of a run; none where all could."""
        if not self.indices:
            return []
        total, labels = len(self.examples), self.examples.labels
        share = (
            f"{len(self.indices):,} of {total:,} training images ({len(self.indices) / total:.1%})"
        )
        lines = [f"note    {share} could not be read, and were left out"]
        # a class that has no image left is no class of the model
        found = np.bincount(labels[sorted(self.indices)], minlength=len(self.examples.classes))
        whole = np.bincount(labels, minlength=len(self.examples.classes))
        gone = [self.examples.classes[i] for i in np.flatnonzero((found == whole) & (whole > 0))]
        if self.examples.labelled and gone:
            names = ", ".join(escaped(name) for name in gone[:3])
            lines.append(
                f"note    no image of {amount(len(gone), 'class', 'classes')} could be read: {names}"
            )
        return lines
