"""Which images a run trains on and which it is scored on: drawn once, written into the run, looked up ever after."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import reprlib
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.data import DataConfig
from fmjax.data.example import Examples, Field, Splits
from fmjax.data.strings import Paths
from fmjax.errors import CheckpointError, DataError, amount
from fmjax.serial import write_atomically

SPLIT = "split.jsonl"
FORMAT = 1
NOT_A_FILE = -1  # the size of a picture that lies in no file of its own
EXAMPLES = 3
UNRECORDED = (
    "which images the run holds out is not recorded, as in runs of older versions: the part is drawn anew, and is the "
    "same only if no image came or went since"
)

_shown = reprlib.Repr()
_shown.maxstring = 80


@dataclass(frozen=True)
class Part:
    """What identifies images: names [N], below the source's folder, labels int32 [N], and sizes in bytes int64 [N]."""

    names: list[str]
    labels: np.ndarray
    sizes: np.ndarray

    def __len__(self) -> int:
        return len(self.names)


@dataclass(frozen=True)
class Split:
    """Two disjoint lists of images whose labels index `classes`."""

    classes: tuple[str, ...]
    train: Part
    val: Part

    @property
    def digest(self) -> str:
        """One for the same images in the same order, wherever they lie."""
        return hashlib.sha256("".join(_rows(self)).encode()).hexdigest()


@dataclass(frozen=True)
class Changes:
    """How images differ from recorded ones, by name. `removed` and `changed` (another size or class) were recorded."""

    added: list[str]
    removed: list[str]
    changed: list[str]

    @property
    def lost(self) -> bool:
        """Whether recorded images cannot be had as they were."""
        return bool(self.removed or self.changed)

    def __str__(self) -> str:
        kinds = (
            ("added", self.added),
            ("removed", self.removed),
            ("of another size or class", self.changed),
        )
        return ", ".join(
            f"{len(names):,} {kind} ({examples(names)})" for kind, names in kinds if names
        )


@dataclass(frozen=True)
class Images:
    """A run's two sources, their record, and how the data differ from the record (None: they were not recorded)."""

    train: Examples
    val: Examples
    split: Split
    changes: Changes | None


def examples(names: Sequence[str]) -> str:
    """The first few names, quoted and short."""
    shown = ", ".join(_shown.repr(name) for name in names[:EXAMPLES])
    return f"{shown}, ..." if len(names) > EXAMPLES else shown


def divide(splits: Splits, data: DataConfig, recorded: Split | None) -> Images:
    """The images of a run: those of its record, and where it has none, the source's own or newly drawn parts.

    Images that the record does not know are left out. Raises DataError, with what differs, where it has others that
    are gone, or are no longer what they were.
    """
    if recorded is None:
        # a first start: what is drawn here is what gets recorded
        train, val = splits.both(data.val_fraction, data.split_seed)
        parts = (part_of(source, data.source) for source in (train, val))
        return Images(train, val, Split(train.classes, *parts), None)
    everything = joined(splits)
    present = part_of(everything, data.source)
    changes = compare(recorded, present)
    # images that came since are left out; one that is gone or another would make a resumed run a different run
    if changes.lost:
        raise DataError(
            f"{data.source} is not what the run was trained on: {changes}; restore the files, or pass "
            f"--fresh to start over with what is there"
        )
    return Images(*_sources(everything, present, recorded), recorded, changes)


def held_out(everything: Examples, data: DataConfig, recorded: Split) -> tuple[Examples, Changes]:
    """The recorded images for the score, and how all of the data differ from the record; training images may be gone.

    Raises DataError where one of the images for the score is: the score of the others would be another one.
    """
    present = part_of(everything, data.source)
    lost = compare(recorded, present, training=False)
    if lost.lost:
        raise DataError(
            f"{data.source} lacks some of the run's {len(recorded.val):,} held-out images: "
            f"{Changes([], lost.removed, lost.changed)}; restore the files, or score other images with --source"
        )
    return _chosen(everything, present, recorded.val), compare(recorded, present)


def is_recorded(everything: Examples, data: DataConfig, recorded: Split) -> bool:
    """Whether a folder holds all of a run's images, under the names and with the sizes that they had."""
    present = part_of(everything, data.source)
    # names without sizes prove nothing: every table has a row 1
    return bool((present.sizes != NOT_A_FILE).any()) and not compare(recorded, present).lost


def trained_on(source: Examples, place: str, recorded: Split) -> list[str]:
    """The names of the files that have the name and the size of one that the run was trained on."""
    known = dict(zip(recorded.train.names, recorded.train.sizes.tolist(), strict=True))
    part = part_of(source, place)
    # a name alone proves nothing: every set has a 1.jpg
    sizes = zip(part.names, part.sizes.tolist(), strict=True)
    files = [(name, size) for name, size in sizes if size != NOT_A_FILE]
    return [name for name, size in files if known.get(name) == size]


def joined(splits: Splits) -> Examples:
    """All images of a source."""
    train, val = splits.train, splits.val
    if val is None:
        return train
    # an index goes on counting through the second part
    count = len(train)

    def either(one: Field, other: Field) -> Field:
        return lambda i: one(i) if i < count else other(i - count)

    return replace(
        train,
        fields={name: either(field, val.fields[name]) for name, field in train.fields.items()},
        labels=np.concatenate([train.labels, val.labels]),
        names=either(train.names, val.names),
        files=_both(train.files, val.files),
        masks=_both(train.masks, val.masks),
        sizes=_both_sizes(train.sizes, val.sizes),
        stream=train.stream.joined(val.stream) if train.stream and val.stream else None,
    )


def _both_sizes(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


def _both(one: Sequence[Path], other: Sequence[Path]) -> Sequence[Path]:
    if isinstance(one, Paths) and isinstance(other, Paths) and one.root == other.root:
        return Paths(one.root, one.names + other.names)
    return [*one, *other]


def relabelled(source: Examples, classes: tuple[str, ...]) -> Examples:
    """The same images with labels that index other classes, by name; -1 for those of a class that is not among them."""
    if "labels" in source.fields:
        return _columns_moved(source, classes)
    if not source.labelled:  # the classes are those of pixels, whose numbers are in files
        return _of_classes(source, classes)
    numbers = {name: i for i, name in enumerate(classes)}
    table = np.asarray([numbers.get(name, -1) for name in source.classes], np.int32)
    return replace(source, labels=table[source.labels], classes=classes)


def _columns_moved(source: Examples, classes: tuple[str, ...]) -> Examples:
    """The same examples of several classes each. Raises DataError where some are not among the classes."""
    unknown = [name for name in source.classes if name not in classes]
    if unknown:
        raise DataError(
            f"the images have {amount(len(unknown), 'class', 'classes')} ({examples(unknown)}) that the run's "
            f"{len(classes)} ({examples(classes)}) lack; rename them, or take their labels out"
        )
    places, labels = [classes.index(name) for name in source.classes], source.fields["labels"]

    def moved(index: int) -> np.ndarray:
        row = np.zeros(len(classes), np.float32)
        row[places] = labels(index)
        return row

    return replace(source, fields={**source.fields, "labels": moved}, classes=classes)


def _of_classes(source: Examples, classes: tuple[str, ...]) -> Examples:
    """The same examples. Raises DataError where the values of their masks mean other classes."""
    if source.classes != classes:
        raise DataError(
            f"the masks have {len(source.classes)} classes ({examples(source.classes)}) and the run "
            f"{len(classes)} ({examples(classes)}); a value must mean the same, so put the run's into classes.txt"
        )
    return source


def _recorded_labels(source: Examples) -> np.ndarray:
    """int32 [N]: the label of each example; of several labels a checksum, as one number would say too little."""
    if "labels" not in source.fields:
        return source.labels.astype(np.int32)
    rows = (source.fields["labels"](i) for i in range(len(source)))
    marks = (zlib.crc32(np.ascontiguousarray(row).tobytes()) & 0x7FFFFFFF for row in rows)
    return np.fromiter(marks, np.int32)


def part_of(source: Examples, place: str) -> Part:
    """The names and sizes of a source's images. place: the `--data.source` that it was opened by.

    Names of files are below the source's folder, so that it can be moved; nothing is read of a file but its size.
    """
    labels = _recorded_labels(source)
    if not source.files:
        names = [source.names(i) for i in range(len(source))]
        unknown = np.full(len(names), NOT_A_FILE, np.int64)
        return Part(names, labels, unknown if source.sizes is None else source.sizes)
    if isinstance(source.files, Paths) and not source.masks:
        # below the folder already, and without a Path for each of perhaps millions
        found = _sizes(f"{source.files.root}{os.sep}{name}" for name in source.files.names)
        return Part([name.replace(os.sep, "/") for name in source.files.names], labels, found)
    folder = os.path.join(Path(place.partition(":")[2]).expanduser(), "")
    paths = [str(path) for path in source.files]
    sizes = _sizes(paths)
    if source.masks:  # a mask that changes makes its image another example
        sizes = sizes + _sizes([str(path) for path in source.masks])
    names = [path.removeprefix(folder).replace(os.sep, "/") for path in paths]
    return Part(names, labels, sizes)


def _sizes(paths: Iterable[str]) -> np.ndarray:
    """int64 [N], in bytes."""
    return np.fromiter((_size(path) for path in paths), np.int64)


def _size(path: str) -> int:
    """Of a dead link, which is named as unreadable later on, as of what is no file."""
    try:
        return os.stat(path).st_size
    except OSError:
        return NOT_A_FILE


def compare(recorded: Split, present: Part, *, training: bool = True) -> Changes:
    """How images that are there differ from a record. training: False looks at those for the score alone."""
    where = {name: i for i, name in enumerate(present.names)}
    removed, changed = [], []
    parts = (recorded.train, recorded.val) if training else (recorded.val,)
    for part in parts:
        found = np.asarray([where.get(name, -1) for name in part.names], np.int64)
        # where an image is gone, found is -1, and what it looks up is not used
        other = (present.sizes[found] != part.sizes) | (present.labels[found] != part.labels)
        removed += [part.names[i] for i in np.flatnonzero(found < 0)]
        differs = (found >= 0) & other
        changed += [part.names[i] for i in np.flatnonzero(differs)]
    known = {*recorded.train.names, *recorded.val.names}
    return Changes([name for name in present.names if name not in known], removed, changed)


def _sources(everything: Examples, present: Part, recorded: Split) -> tuple[Examples, Examples]:
    return _chosen(everything, present, recorded.train), _chosen(everything, present, recorded.val)


def _chosen(everything: Examples, present: Part, part: Part) -> Examples:
    """The images of a part, in its order, which the position in the data counts by."""
    where = {name: i for i, name in enumerate(present.names)}
    places = np.asarray([where[name] for name in part.names], np.int64)
    return everything.subset(places)


def write_split(run: Path, split: Split) -> None:
    """Writes the record: a line about all, a line an image, and a last line with the digest of those before."""
    write_atomically(run / SPLIT, _lines(split))


def _lines(split: Split) -> Iterator[str]:
    digest = hashlib.sha256()
    head = {
        "format": FORMAT,
        "train": len(split.train),
        "val": len(split.val),
        "classes": split.classes,
    }
    for line in itertools.chain([json.dumps(head) + "\n"], _rows(split)):
        digest.update(line.encode())
        yield line
    yield json.dumps({"sha256": digest.hexdigest()}) + "\n"


def _rows(split: Split) -> Iterator[str]:
    for kind, part in (("train", split.train), ("val", split.val)):
        facts = zip(part.names, part.labels.tolist(), part.sizes.tolist(), strict=True)
        for name, label, size in facts:
            yield f'["{kind}", {json.dumps(name)}, {label}, {size}]\n'


def read_split(run: Path) -> Split | None:
    """The record of a run, or None where it has none. Raises CheckpointError where it is damaged."""
    path = run / SPLIT
    if not path.is_file():
        return None
    try:
        return _parsed(path)
    except (ValueError, TypeError, KeyError, IndexError, RecursionError, OverflowError) as error:
        raise CheckpointError(
            f"{path} is damaged, so it is not known which images the run was trained on; put back a copy of it, or "
            f"delete it to have the two parts drawn anew from the images that are there now"
        ) from error


def _parsed(path: Path) -> Split:
    """Raises one of several errors for a file that `write_split` did not write."""
    # line by line, as there is one for each of perhaps millions of images
    digest, rows, last = hashlib.sha256(), {"train": [], "val": []}, b""
    with path.open("rb") as file:
        first = next(file, b"")
        head: dict[str, Any] = json.loads(first)
        digest.update(first)
        for line in file:
            if line.startswith(b"{"):
                last = line
                break
            digest.update(line)
            kind, *facts = json.loads(line)
            rows[kind].append(facts)
        rest = file.read(1)
    # cut short, edited, or with a line behind the digest: all three are damage
    if rest or json.loads(last)["sha256"] != digest.hexdigest() or head["format"] != FORMAT:
        raise ValueError("another digest")
    return Split(tuple(head["classes"]), _part(rows["train"]), _part(rows["val"]))


def _part(rows: list[list[Any]]) -> Part:
    labels = np.asarray([label for _, label, _ in rows], np.int32)
    return Part(
        [name for name, _, _ in rows], labels, np.asarray([size for _, _, size in rows], np.int64)
    )
