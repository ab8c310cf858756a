"""What lies beside the records of `arrayrecord:DIR`: dataset.json, and an index of each part with names and labels."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data.example import Examples
from fmjax.data.images import regular_file
from fmjax.data.strings import Strings
from fmjax.errors import DataError, UsageError, escaped
from fmjax.serial import from_dict, to_json, write_atomically

FORMAT = 1  # of the records and of all that lies beside them
CONTENTS = "dataset.json"
PARTS = ("train", "val")
MAX_CONTENTS = 1 << 28  # bytes of dataset.json
AGAIN = "pack the set again with `fmjax data pack`"


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One ArrayRecord file."""

    file: str
    records: int
    size: int  # in bytes


@dataclass(frozen=True, kw_only=True)
class Part:
    """The files of one part of a set, in the order of its examples."""

    name: str  # "train" or "val"
    index: str  # the file with the names, the labels and the pictures' sizes
    digest: str  # of the index: XXH3, 128 bits, as hexadecimal digits
    shards: tuple[Shard, ...]

    @property
    def records(self) -> int:
        return sum(shard.records for shard in self.shards)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """dataset.json: what a folder of records has."""

    format: int = FORMAT
    classes: tuple[str, ...]
    fields: tuple[str, ...]  # of an example: image, mask, label or labels
    parts: tuple[Part, ...]


def write_index(path: Path, examples: Examples, indices: np.ndarray, *, sizes: np.ndarray) -> str:
    """Writes the names and labels of some examples, in that order, and the sizes of their pictures; returns the file's
    digest."""
    names = Strings.of(examples.names(int(i)) for i in indices)
    arrays = {"names": names.blob, "name_ends": names.ends, "sizes": sizes}
    if "labels" in examples.fields:
        # the classes of each one behind the other: a table of all classes for all examples may be gigabytes
        rows = [np.flatnonzero(examples.fields["labels"](int(i))) for i in indices]
        arrays["labels"] = np.concatenate([np.zeros(0, np.int64), *rows]).astype(np.int32)
        arrays["label_ends"] = np.cumsum([len(row) for row in rows], dtype=np.int64)
    else:
        arrays["labels"] = examples.labels[indices].astype(np.int32)
    np.savez(path, **arrays)  # pyright: ignore[reportArgumentType]
    return _digest(path.read_bytes())


def _digest(data: bytes) -> str:
    import xxhash

    return xxhash.xxh3_128_hexdigest(data)


def write_contents(folder: Path, contents: Contents) -> None:
    """Writes dataset.json, the last file of a set: a folder without it is none."""
    write_atomically(folder / CONTENTS, to_json(contents) + "\n")


def read_contents(folder: Path) -> Contents:
    """Raises DataError, with the fix, where a folder holds no records, or those of another format."""
    path = folder / CONTENTS
    where = escaped(str(path))
    if not path.exists():
        raise DataError(
            f"there is no {where}; pass arrayrecord:DIR with a DIR that `fmjax data pack` has written"
        )
    try:
        with regular_file(path) as file:
            text = file.read(MAX_CONTENTS + 1)
        if len(text) > MAX_CONTENTS:
            raise DataError(f"it has more than {MAX_CONTENTS:,} bytes")
        values = json.loads(text)
        number = values.get("format") if isinstance(values, Mapping) else None
        # before the fields, as those of another format may be others
        if number == FORMAT:
            return _checked(_contents(values))
    except (OSError, ValueError, TypeError, UsageError, RecursionError) as error:
        raise DataError(f"{where} is damaged: {escaped(str(error), 200)}; {AGAIN}") from error
    raise DataError(
        f"{where} has the format {escaped(str(number), 20)!r}, and this version of fmjax reads {FORMAT}; {AGAIN}"
    )


def _contents(values: Mapping) -> Contents:
    # records in lists are taken out: `from_dict` knows those that are fields themselves
    parts = tuple(_part(row) for row in values.get("parts", ()))
    return replace(from_dict(Contents, {**values, "parts": []}), parts=parts)


def _part(values: Any) -> Part:
    shards = tuple(from_dict(Shard, row) for row in dict(values).get("shards", ()))
    return replace(from_dict(Part, {**values, "shards": []}), shards=shards)


def _checked(contents: Contents) -> Contents:
    names = [part.name for part in contents.parts]
    # a name is one of a file in the folder, whoever wrote the JSON
    files = [shard.file for part in contents.parts for shard in part.shards]
    files += [part.index for part in contents.parts]
    outside = [file for file in files if file != Path(file).name or file in ("", ".", "..")]
    if outside:
        raise DataError(f"it names {escaped(outside[0])!r}, which is no file in the folder")
    if names not in (["train"], list(PARTS)):
        raise DataError(
            f"its parts are {', '.join(map(escaped, names)) or 'none'}; it needs train, or train and val"
        )
    if "image" not in contents.fields or (
        "label" in contents.fields and "labels" in contents.fields
    ):
        raise DataError(
            f"its fields are {', '.join(map(escaped, contents.fields))}; it needs image"
        )
    return contents


@dataclass(frozen=True)
class Index:
    """Of the examples of a part: names [N], sizes of the pictures int64 [N], labels int32 [N]; or, where there are
    several, all one behind the other, and where each example's end, int64 [N]."""

    names: Strings
    labels: np.ndarray
    ends: np.ndarray | None
    sizes: np.ndarray


def read_index(path: Path, *, part: Part, classes: int) -> Index:
    """Raises DataError where it is not the one that was written, or does not fit the records."""
    where = escaped(str(path))
    try:
        # no pickles: the file may be anybody's
        with regular_file(path) as file:
            data = file.read()
        # an index of other labels fits the same records as well
        if _digest(data) != part.digest:
            raise DataError(f"it is not the one that {CONTENTS} was written with")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            names = Strings(arrays["names"], arrays["name_ends"])
            ends = arrays.get("label_ends")
            found = Index(names, arrays["labels"], ends, arrays["sizes"])
        _check_index(found, part.records, classes)
    except (OSError, ValueError, LookupError, EOFError, MemoryError, zipfile.BadZipFile) as error:
        raise DataError(f"{where} is damaged: {escaped(str(error), 200)}; {AGAIN}") from error
    return found


def _check_index(index: Index, records: int, classes: int) -> None:
    """Raises DataError for places that do not fit: they are looked up ever after, unchecked."""
    # kinds first: a number of another kind may compare otherwise
    kinds = (index.names.blob.dtype, index.names.ends.dtype, index.labels.dtype)
    if kinds != (np.uint8, np.int64, np.int32) or index.sizes.dtype != np.int64:
        raise DataError("its arrays are of other kinds")
    if index.sizes.shape != (records,):
        raise DataError(f"it has {len(index.sizes):,} sizes, and the records are {records:,}")
    _check_ends(index.names.ends, records, len(index.names.blob))
    _check_ends(
        np.arange(1, len(index.labels) + 1) if index.ends is None else index.ends,
        records,
        len(index.labels),
    )
    if len(index.labels) and not 0 <= index.labels.min() <= index.labels.max() < classes:
        raise DataError(
            f"it has the label {int(index.labels.max())}, and there are {classes} classes"
        )


def _check_ends(ends: np.ndarray, count: int, last: int) -> None:
    if len(ends) != count:
        raise DataError(f"it has {len(ends):,} examples, and the records are {count:,}")
    steps = np.diff(ends, prepend=0)
    if len(ends) and (ends[-1] != last or steps.min() < 0):
        raise DataError("what it holds does not fit together")
