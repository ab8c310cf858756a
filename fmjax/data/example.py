"""Examples: random access to the fields of each, nothing decoded before it is asked for. Imports no jax."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data.folders import LeftOut, few
from fmjax.data.strings import Paths
from fmjax.errors import DataError

# fields of one: as they lie (path, file contents, PIL image, array), later arrays
Example = dict[str, Any]
Field = Callable[[int], Any]


@dataclass(frozen=True)
class Stream:
    """How the examples of a set lie that comes from elsewhere in groups, of which a few are here at a time."""

    groups: np.ndarray  # int32 [N]: the number of the group that each example is in
    weights: np.ndarray  # int64 [N]: the bytes of that group
    window: int  # bytes of groups whose examples are shuffled together
    ahead: Callable[[int], None]  # has the group of a number fetched

    def take(self, indices: np.ndarray) -> Stream:
        """Of some examples, in that order."""
        return replace(self, groups=self.groups[indices], weights=self.weights[indices])

    def joined(self, other: Stream) -> Stream:
        """Of the examples of another part of the same set behind these."""
        groups, weights = [self.groups, other.groups], [self.weights, other.weights]
        return replace(self, groups=np.concatenate(groups), weights=np.concatenate(weights))


@dataclass(frozen=True)
class Examples:
    """A set of examples. `fields["image"](i)` is a Picture, as is a mask; "labels" is float32 [K],
    1 for each class that the example is of; any other field is a number or an array."""

    fields: Mapping[str, Field]
    # int32 [N]: index into `classes`, by which a split is stratified; zeros where unlabelled
    labels: np.ndarray
    classes: tuple[str, ...]
    names: Callable[[int], str]
    files: Sequence[Path] = ()  # of each image, where they are files
    masks: Sequence[Path] = ()  # of each mask, where they are files
    # int64 [N]: of each picture in bytes, where a source that has no file for each knows them; -1 where there is none
    sizes: np.ndarray | None = None
    # whether an example as a whole is of a class, so that its label is one of its fields
    labelled: bool = True
    stream: Stream | None = None  # of a set that is not on this machine

    @classmethod
    def of_files(
        cls, files: Sequence[Path], counts: Mapping[str, int], classes: tuple[str, ...]
    ) -> Examples:
        """Files of pictures, those of a class behind each other. counts: how many each class has, in their order."""
        number = {name: place for place, name in enumerate(classes)}
        labels = np.repeat([number[name] for name in counts], list(counts.values()))
        return cls(
            fields={"image": lambda i: files[i]},
            labels=labels.astype(np.int32),
            classes=classes,
            names=lambda i: str(files[i]),
            files=files,
        )

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def field_names(self) -> tuple[str, ...]:
        """The fields that `read` gives."""
        return (*self.fields, *(("label",) if self.labelled else ()))

    def read(self, index: int, *, without: str = "") -> Example:
        """All fields of one example, but for one that would be read for nothing; "label" is an int32 number."""
        wanted = {name: field for name, field in self.fields.items() if name != without}
        example = {name: field(index) for name, field in wanted.items()}
        if self.labelled:
            example["label"] = np.int32(self.labels[index])
        return example

    def subset(self, indices: np.ndarray) -> Examples:
        """The same examples, fewer of them, in the order of the indices."""

        def at(field: Field) -> Field:
            return lambda i: field(int(indices[i]))

        # what a source does not know of its examples it does not know of fewer
        sizes = None if self.sizes is None else self.sizes[indices]
        stream = None if self.stream is None else self.stream.take(indices)
        return Examples(
            fields={name: at(field) for name, field in self.fields.items()},
            labels=self.labels[indices],
            classes=self.classes,
            names=at(self.names),
            files=_chosen(self.files, indices),
            masks=_chosen(self.masks, indices),
            sizes=sizes,
            labelled=self.labelled,
            stream=stream,
        )


def _chosen(paths: Sequence[Path], indices: np.ndarray) -> Sequence[Path]:
    if isinstance(paths, Paths):
        return paths.take(indices)
    return [paths[i] for i in indices] if paths else ()


@dataclass(frozen=True)
class Splits:
    """train and val share their classes; val is None where the source has no split of its own."""

    train: Examples
    val: Examples | None
    left_out: tuple[LeftOut, ...] = ()  # what of the source is not used, and why
    notes: tuple[str, ...] = ()  # what a person should know of how it was read
    source: str = (
        ""  # what a run records in the place of `--data.source`, where that may become another set
    )

    def both(self, fraction: float, seed: int) -> tuple[Examples, Examples]:
        """(train, val), val taken from train where there is none: of labelled examples the same part of every class."""
        if self.val is not None:
            return self.train, self.val
        return divided(self.train, fraction, seed)


def check_fields(examples: Examples, needs: Sequence[str], *, source: str) -> None:
    """Raises DataError where the examples lack a field that is needed. source: as `--data.source` names it."""
    missing = [name for name in needs if name not in examples.field_names]
    if missing:
        raise DataError(
            f"{source} has {few(examples.field_names)} and no {few(missing)}, which is needed here; "
            f"pass another --data.source"
        )


def divided(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Two disjoint parts, the second with `fraction` of the examples: of every class, where they are labelled."""
    divide = stratified if examples.labelled else drawn
    return divide(examples, fraction, seed)


def stratified(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Two disjoint parts with the same share of every class; the second has `fraction` of the examples."""
    counts = np.bincount(examples.labels, minlength=len(examples.classes))
    # a list of classes may name some that no image is of
    present = np.flatnonzero(counts)
    rare = [examples.classes[number] for number in present if counts[number] < 2]
    if rare:
        raise DataError(
            f"a split needs two images of every class; {few(rare)} has fewer; add some, or make a val/ folder"
        )
    # each part needs an image of every class at least
    least, labels = len(present), examples.labels
    return _parts(examples, fraction, seed=seed, least=least, stratify=labels)


def drawn(examples: Examples, fraction: float, seed: int) -> tuple[Examples, Examples]:
    """Two disjoint parts; the second has `fraction` of the examples, whatever is in them."""
    if len(examples) < 2:
        raise DataError(
            f"a split needs two images, not {len(examples)}; add some, or make a val/ folder"
        )
    return _parts(examples, fraction, seed=seed, least=1, stratify=None)


def _parts(
    examples: Examples, fraction: float, *, seed: int, least: int, stratify: np.ndarray | None
) -> tuple[Examples, Examples]:
    """Both parts, in the order of the source; each has at least `least` examples."""
    from sklearn.model_selection import train_test_split

    everything = np.arange(len(examples))
    # a fraction near 0 or 1 must leave neither part without an example of each class
    most = len(examples) - least
    count = min(max(round(len(examples) * fraction), least), most)
    train, val = train_test_split(everything, test_size=count, stratify=stratify, random_state=seed)
    # in the source's order: the shuffle of training is by place, so that a record of names gives it again
    return examples.subset(np.sort(train)), examples.subset(np.sort(val))
