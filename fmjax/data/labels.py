"""Labels as a source spells them, and as numbers: a name means one class in every part of a set."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fmjax.data.example import Examples, Field, Splits, Stream
from fmjax.data.folders import LeftOut, check_names, few, folded
from fmjax.errors import DataError, escaped


@dataclass(frozen=True)
class Labels:
    """The labels of N examples by name: codes int32, places in `names`.

    ends: None where each example has one label, codes [N]; else int64 [N], where each example's codes end.
    """

    names: tuple[str, ...]
    codes: np.ndarray
    ends: np.ndarray | None = None

    @classmethod
    def of(cls, labels: Iterable[str]) -> Labels:
        """One label an example, which may come one by one."""
        numbers: dict[str, int] = {}
        codes = array("i", (numbers.setdefault(label, len(numbers)) for label in labels))
        return cls(tuple(numbers), _int32(codes))

    @classmethod
    def of_several(cls, rows: Iterable[Iterable[str]]) -> Labels:
        """Any number of labels an example; one that is there twice counts once."""
        numbers: dict[str, int] = {}
        codes, ends = array("i"), array("q")
        for row in rows:
            codes.extend(numbers.setdefault(label, len(numbers)) for label in dict.fromkeys(row))
            ends.append(len(codes))
        return cls(tuple(numbers), _int32(codes), np.frombuffer(ends, np.int64))

    def __len__(self) -> int:
        return len(self.codes if self.ends is None else self.ends)

    def at(self, index: int) -> frozenset[int]:
        """The codes of one example."""
        if self.ends is None:
            return frozenset([int(self.codes[index])])
        start = int(self.ends[index - 1]) if index else 0
        return frozenset(self.codes[start : int(self.ends[index])].tolist())

    def present(self) -> list[str]:
        """The names that some example has."""
        counts = np.bincount(self.codes, minlength=len(self.names))
        return [self.names[i] for i in np.flatnonzero(counts)]

    def take(self, indices: np.ndarray) -> Labels:
        """Those of some examples, in that order."""
        if self.ends is None:
            return replace(self, codes=self.codes[indices])
        starts = np.concatenate([np.zeros(1, np.int64), self.ends])[indices]
        lengths = self.ends[indices] - starts
        ends = np.cumsum(lengths, dtype=np.int64)
        # the place of each code among the old ones: its own, moved by as much as its example was
        moved = np.repeat(starts - (ends - lengths), lengths) + np.arange(lengths.sum())
        return replace(self, codes=self.codes[moved], ends=ends)

    def by_place(self, classes: Sequence[str]) -> Labels:
        """The same labels with the names of classes, where they are numbers: places in a list that names them."""
        # classes that are numbers are their own names: 1 is not the second of 0, 1 and 10
        if (
            not classes
            or not self.names
            or not _numbers(self.names)
            or any(map(_is_number, classes))
        ):
            return self
        if max(map(int, self.names)) >= len(classes):
            return self
        return replace(self, names=tuple(classes[int(name)] for name in self.names))

    def numbered(self, classes: Sequence[str]) -> Labels:
        """The same labels as places in `classes`, which has all that are present."""
        place = {name: number for number, name in enumerate(classes)}
        table = np.asarray([place.get(name, -1) for name in self.names], np.int32)
        codes = table[self.codes] if len(table) else self.codes
        return Labels(tuple(classes), codes, self.ends)

    def multi_hot(self) -> Field:
        """What gives an example's labels as float32 [K]."""
        starts = (
            np.concatenate([np.zeros(1, np.int64), self.ends])
            if self.ends is not None
            else self.codes
        )

        def row(index: int) -> np.ndarray:
            found = np.zeros(len(self.names), np.float32)
            found[self.codes[starts[index] : starts[index + 1]]] = 1
            return found

        return row


def _int32(codes: array) -> np.ndarray:
    return np.frombuffer(codes, np.int32) if codes else np.zeros(0, np.int32)


@dataclass(frozen=True)
class Rows:
    """One part of a set as its source has it."""

    image: Field
    labels: Labels
    names: Sequence[str]  # of the examples, as they are printed and recorded
    files: Sequence[Path] = ()  # of each image, where they are files
    sizes: np.ndarray | None = None  # int64 [N]: of each picture in bytes, where they are none
    stream: Stream | None = None  # of pictures that are not on this machine

    def examples(self, classes: tuple[str, ...]) -> Examples:
        """The part with labels that index the classes."""
        # no single class to split or balance by where there are several
        labels, names = self.labels.numbered(classes), self.names
        several = labels.ends is not None
        fields: dict[str, Field] = {"image": self.image}
        if several:
            fields["labels"] = labels.multi_hot()
        return Examples(
            fields=fields,
            labels=np.zeros(len(labels), np.int32) if several else labels.codes,
            classes=classes,
            names=lambda i: names[i],
            sizes=self.sizes,
            files=self.files,
            labelled=not several,
            stream=self.stream,
        )


def splits_of(
    parts: Mapping[str, Rows],
    *,
    where: str,
    known: Sequence[str] = (),
    declared: Sequence[str] = (),
    wanted: str = "",
    left_out: Sequence[LeftOut] = (),
    notes: Sequence[str] = (),
) -> Splits:
    """The parts of a set with one numbering of their classes. Raises DataError, with the fix, where there is none.

    parts: by "train", "val" and "test", or "" for a set without parts. where: what has them, as a sentence may call it.
    known: the classes that there may be, in their order. declared: those that the source itself lists, for when none
    are known. wanted: the one part that was asked for.
    """
    chosen = _chosen(parts, where, wanted)
    # train numbers the classes: one that val alone has would be an output that nothing ever taught
    for part in chosen:
        if not len(part.labels):
            raise DataError(f"{where} has no images; add some, or pass another --data.source")
    chosen = [replace(part, labels=part.labels.by_place(known)) for part in chosen]
    first, *rest = chosen
    classes = tuple(known or declared or in_order(first.labels.present()))
    check_names(where, classes)
    for part in chosen:
        check_known(where, part.labels.present(), classes)
    if len(classes) < 2:
        raise DataError(f"{where} has one class, {few(classes)}; classification needs two or more")
    train, *val = [part.examples(classes) for part in (first, *rest)]
    said = [*notes, *_test_note(parts, where, wanted)]
    return Splits(train, val[0] if val else None, tuple(left_out), tuple(said))


def _chosen(parts: Mapping[str, Rows], where: str, wanted: str) -> list[Rows]:
    """[train], or [train, val]; of a part that was asked for, [that one]."""
    # a part by its name first: a set that has no train can be scored all the same
    if wanted:
        if wanted not in parts:
            raise DataError(
                f"{where} has no {wanted} part; it has {few(filter(None, parts)) or 'no parts'}"
            )
        return [parts[wanted]]
    if "" in parts:
        return [parts[""]]
    if "train" not in parts:
        named = few(parts)
        raise DataError(
            f"{where} has {named} and no train; name one of them behind it, as in #{next(iter(parts))}"
        )
    return [parts[role] for role in ("train", "val") if role in parts]


def _test_note(parts: Mapping[str, Rows], where: str, wanted: str) -> list[str]:
    """No run looks at a test part by accident."""
    if wanted or "test" not in parts:
        return []
    return [
        f"the test part of {where} is left out; to score a run on it, put #test behind the source"
    ]


def in_order(names: Iterable[str]) -> list[str]:
    """Names as classes are numbered: by their letters, and numbers by their size, where all are numbers."""
    names = sorted(names)
    return sorted(names, key=int) if _numbers(names) else names


def _numbers(names: Sequence[str]) -> bool:
    return all(map(_is_number, names))


def _is_number(name: str) -> bool:
    # other scripts have digits, too, and a name of thousands of them is no number
    return name.isascii() and name.isdigit() and len(name) < 19


def check_known(where: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Raises DataError for names that are no known classes. where: what has them, as it may be printed."""
    every = set(known)
    unknown = [name for name in names if name not in every]
    if not unknown:
        return
    # Cat for cat: what a copy to another file system does to a name
    near = {folded(name): name for name in known}
    meant = [
        f"{escaped(name)} for {escaped(near[folded(name)])}"
        for name in unknown
        if folded(name) in near
    ]
    hint = f" ({', '.join(meant[:3])}?)" if meant else ""
    raise DataError(
        f"{where} has classes that the training set has not: {few(unknown)}{hint}; rename or remove them"
    )
