"""A tar file as a table of samples: read once, kept, and then read by place. Nothing is ever unpacked.

A sample is the files that follow each other with one name up to the first dot, as webdataset has it: `0001.jpg` and
`0001.cls` or `0001.json`.
"""

from __future__ import annotations

import json
import os
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data.cache import Arrays, kept, state_of
from fmjax.data.images import SUFFIXES, regular_file
from fmjax.data.strings import Growing, Strings
from fmjax.errors import DataError, escaped

LINKS, NO_IMAGE, IMAGES = "links", "samples without an image", "samples of several images"
NO_LABEL, SPARSE = "samples without a label", "files with holes"
TWICE = "samples that are there twice"
MAX_LABEL = 1 << 20  # bytes of a label's file
MAX_IMAGE = 1 << 30
KEYS = ("label", "class", "labels", "cls", "target", "category")  # of a JSON file
BETWEEN = "\x1f"  # several labels, as they are kept
BLOCK = 512


@dataclass(frozen=True)
class Samples:
    """Of a tar file: names and labels [N], and where each image lies: places and sizes int64 [N], in bytes."""

    names: Strings
    labels: Strings
    several: bool
    places: np.ndarray
    sizes: np.ndarray
    left_out: dict[str, list[Any]]  # reason -> [count, the first]


@dataclass
class _Reading:
    names: Growing = field(default_factory=Growing)
    labels: Growing = field(default_factory=Growing)
    places: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    kinds: set[bool] = field(default_factory=set)  # whether a sample has several labels
    counts: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, name: str) -> None:
        self.counts[reason] += 1
        self.first.setdefault(reason, name)


def samples(path: Path, label_key: str = "") -> Samples:
    """The samples of a tar file. label_key: of the label in a JSON file; "" takes .cls, or a usual key.

    Raises DataError, with the fix, for a file that is no whole tar.
    """
    # what was read before holds as long as the file's size and times do
    try:
        key = {"path": os.path.abspath(path), "state": state_of(path), "label_key": label_key}
    except OSError as error:
        raise DataError(f"{escaped(str(path))} cannot be opened: {error.strerror}") from error
    try:
        arrays = kept("wds", key, lambda: _built(path, label_key))
    except OSError as error:
        raise DataError(
            f"{escaped(str(path))} cannot be read: {error.strerror or error}"
        ) from error
    text = Strings(arrays["labels"], arrays["label_ends"])
    return Samples(
        names=Strings(arrays["names"], arrays["name_ends"]),
        labels=text,
        several=bool(arrays["several"]),
        places=arrays["places"],
        sizes=arrays["sizes"],
        left_out=json.loads(arrays["left_out"].tobytes()),
    )


def read_image(path: Path, place: int, size: int) -> bytes:
    """The bytes of an image in a tar file. Raises OSError or DataError where they are not there any more."""
    with regular_file(path) as file:
        file.seek(place)
        found = file.read(size)
    if len(found) != size:
        raise DataError(f"{escaped(path.name)} is shorter than it was")
    return found


def _built(path: Path, label_key: str) -> Arrays:
    reading = _Reading()
    # of one sample are those that follow each other: sets of any size are read without a table of all names
    for key, group in groupby(_members(path, reading), key=lambda member: _key(member.name)):
        _take(path, key, list(group), label_key, reading)
    if len(reading.kinds) > 1:
        raise DataError(
            f"{escaped(str(path))} has samples with one label and samples with a list of them; write lists for all"
        )
    names, labels = reading.names.done(), reading.labels.done()
    left_out = {reason: [count, reading.first[reason]] for reason, count in reading.counts.items()}
    return {
        "names": names.blob,
        "name_ends": names.ends,
        "labels": labels.blob,
        "label_ends": labels.ends,
        "several": np.asarray(True in reading.kinds),
        "places": np.asarray(reading.places, np.int64),
        "sizes": np.asarray(reading.sizes, np.int64),
        "left_out": np.frombuffer(json.dumps(left_out).encode(), np.uint8),
    }


def _key(name: str) -> str:
    folder, mark, file = name.rpartition("/")
    return f"{folder}{mark}{file.partition('.')[0]}"


def _members(path: Path, reading: _Reading) -> Iterator[tarfile.TarInfo]:
    """The regular files of a tar, in order. Raises DataError where it ends too early or is none."""
    where = escaped(str(path))
    with regular_file(path) as raw:
        if raw.read(2) == b"\x1f\x8b":
            raise DataError(
                f"{where} is compressed, so that no image can be read alone; unpack it with gunzip"
            )
        size = raw.seek(0, os.SEEK_END)
        raw.seek(0)
        try:
            with tarfile.open(fileobj=raw, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    # kept by the library, for extracting; of a million it would be a gigabyte
                    tar.members.clear()  # pyright: ignore[reportAttributeAccessIssue]
                    if member.isreg() and not member.issparse():
                        yield member
                    elif not member.isdir():
                        reading.skip(SPARSE if member.isreg() else LINKS, member.name)
                _check_end(where, tar.offset, raw, size)
        except (tarfile.TarError, OverflowError, ValueError, EOFError) as error:
            if isinstance(error, DataError):
                raise
            reason = escaped(str(error), 120)
            raise DataError(
                f"{where} is no whole tar file: {reason}; copy or write it again"
            ) from error


def _check_end(where: str, place: int, raw: Any, size: int) -> None:
    """The library takes a damaged header, and the end of a file that was cut, for the end of the set."""
    raw.seek(place)
    block = raw.read(BLOCK)
    if any(block):
        raise DataError(
            f"{where} is no whole tar file: damaged at byte {place:,} of {size:,}; copy it again"
        )
    if len(block) < BLOCK:
        raise DataError(
            f"{where} is no whole tar file: it ends at byte {size:,} without a mark; copy it again"
        )
    # behind the mark is padding; another tar, as `cat` would put there, would be gone in silence
    while block:
        if any(block):
            raise DataError(
                f"{where} goes on behind its end mark, as two tar files that were joined do; pass them apart"
            )
        block = raw.read(1 << 20)


def _take(
    path: Path, key: str, members: Sequence[tarfile.TarInfo], label_key: str, reading: _Reading
) -> None:
    """Adds a sample, or counts why it is none."""
    by_suffix = {_suffix(member.name): member for member in members}
    # two of one name that follow each other: the image of one would get the label of the other
    if len(by_suffix) != len(members):
        reading.skip(TWICE, members[0].name)
        return
    # a suffix as a whole: .seg.png, beside .jpg, is no second image
    images = [member for suffix, member in by_suffix.items() if suffix in SUFFIXES]
    if len(images) != 1 or images[0].size > MAX_IMAGE:
        reading.skip(IMAGES if images else NO_IMAGE, members[0].name)
        return
    label = _label(path, by_suffix, label_key)
    if label is None:
        reading.skip(NO_LABEL, members[0].name)
        return
    reading.kinds.add(isinstance(label, list))
    reading.names.add(key)
    reading.labels.add(BETWEEN.join(label) if isinstance(label, list) else label)
    reading.places.append(images[0].offset_data)
    reading.sizes.append(images[0].size)


def _suffix(name: str) -> str:
    mark, rest = name.rpartition("/")[2].partition(".")[1:]
    return f"{mark}{rest}".lower()


def _label(
    path: Path, members: dict[str, tarfile.TarInfo], label_key: str
) -> str | list[str] | None:
    """The label of a sample, a list where it has several; None where it has none."""
    plain, described = members.get(".cls"), members.get(".json")
    # a key that was named is in the JSON file, whatever else there is
    if plain is not None and not label_key:
        return _text(path, plain).strip() or None
    if described is None:
        return None
    try:
        values = json.loads(_text(path, described))
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{escaped(str(path))}: {escaped(described.name)} is no JSON; write it again"
        ) from error
    keys = [label_key] if label_key else KEYS
    found = [values[key] for key in keys if isinstance(values, dict) and key in values]
    return _spelled(found[0]) if found else None


def _spelled(value: Any) -> str | list[str] | None:
    if isinstance(value, list):
        whole = all(isinstance(each, str | int) for each in value)
        return [str(each) for each in value] if whole else None
    # of other values, such as fractions, nobody could say which class they are
    return str(value).strip() or None if isinstance(value, str | int) else None


def _text(path: Path, member: tarfile.TarInfo) -> str:
    where = f"{escaped(str(path))}: {escaped(member.name)}"
    if member.size > MAX_LABEL:
        raise DataError(f"{where} has {member.size:,} bytes, and a label at most {MAX_LABEL:,}")
    try:
        return read_image(path, member.offset_data, member.size).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{where} is not UTF-8; write it again") from error
