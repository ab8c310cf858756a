"""The files of `arrayrecord:DIR`: what a record is, and what lies beside the records.

DIR has, for each part of the set, ArrayRecord files `train-00000.array_record` ..., an index `train.npz` and, for all
of them, `dataset.json`. A record is 4 bytes (the length of its head, little-endian), the head, which is JSON, and the
contents of its pictures as their files had them, in the order of the head's `sizes` (or as PPM, shrunk.py):

    {"format": 1, "name": "cat/1.jpg", "label": 3, "sizes": {"image": 48211}}

or "labels": [0, 7], the numbers of the classes, where there are several. The index repeats names, labels and the
sizes of the images, so that a set is opened, split, balanced and compared with a run's record without any picture
being read; dataset.json has the size of every file, which tells a short one, and the digest of the index.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from fmjax.data.example import Example, Examples
from fmjax.data.images import Broken, Picture, Unreadable, regular_file
from fmjax.data.packed import FORMAT, Part, Shard, write_index
from fmjax.errors import DataError, escaped

PICTURES = ("image", "mask")  # fields whose contents a record has
# random access needs records that are stored one by one, and pictures are compressed already
OPTIONS = "group_size:1,uncompressed"
SHARD_BYTES = 1 << 28  # about which a file is full
MAX_HEAD = 1 << 24  # bytes
MAX_PICTURE = 1 << 30  # of a file that is packed


def content(picture: Any) -> bytes:
    """What a file of a picture holds; an array, which has no file, as PNG, which changes no value."""
    if isinstance(picture, bytes):
        return picture
    if isinstance(picture, Broken):
        raise Unreadable("the picture", picture.reason)
    if isinstance(picture, str | Path):
        return _read(picture)
    if isinstance(picture, np.ndarray):
        one_channel = picture.ndim == 3 and picture.shape[2] == 1
        picture = Image.fromarray(picture[..., 0] if one_channel else picture)
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


def _read(path: str | Path) -> bytes:
    try:
        with regular_file(path) as file:
            found = file.read(MAX_PICTURE + 1)
    except (OSError, DataError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreadable(str(path), f"it cannot be opened: {reason}") from error
    if len(found) > MAX_PICTURE:
        raise Unreadable(str(path), f"it has more than {MAX_PICTURE:,} bytes")
    return found


def encode(example: Example, *, name: str, packed: Callable[[Picture], bytes] = content) -> bytes:
    """One record. packed: what makes a file of a picture, by default the one that it has.

    Raises Unreadable for a picture whose file cannot be opened; `content` does not look at what is in it.
    """
    pictures = {field: packed(example[field]) for field in PICTURES if field in example}
    head: dict[str, Any] = {"format": FORMAT, "name": name}
    if "label" in example:
        head["label"] = int(example["label"])
    if "labels" in example:
        head["labels"] = np.flatnonzero(example["labels"]).tolist()
    head["sizes"] = {field: len(picture) for field, picture in pictures.items()}
    # ASCII, so that a name that is no text survives as escapes
    text = json.dumps(head, separators=(",", ":")).encode("ascii")
    return b"".join([len(text).to_bytes(4, "little"), text, *pictures.values()])


def decode(record: bytes) -> tuple[str, Example]:
    """(name, example) of a record: pictures as the bytes of their files, the label or the labels' numbers.

    Raises DataError, without the record's place, for what `encode` did not make.
    """
    # nothing is believed: a damaged file gives bytes of any kind
    length = int.from_bytes(record[:4], "little")
    if not 0 < length <= min(MAX_HEAD, len(record) - 4):
        raise DataError("it is no record of fmjax's")
    try:
        head = json.loads(record[4 : 4 + length])
        number, name, sizes = head["format"], str(head["name"]), head["sizes"]
        ends = list(accumulate(sizes.values(), initial=4 + length))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DataError("its head is damaged") from error
    if number != FORMAT:
        raise DataError(
            f"its format is {escaped(str(number), 20)}, and this version reads {FORMAT}"
        )
    if ends != sorted(ends) or ends[-1] != len(record):
        raise DataError("it is not as long as its head says")
    bounds = zip(sizes, ends[:-1], ends[1:], strict=True)
    example: Example = {field: record[start:end] for field, start, end in bounds}
    return name, example | {field: head[field] for field in ("label", "labels") if field in head}


def write_part(
    folder: Path,
    name: str,
    examples: Examples,
    *,
    records: Iterator[tuple[int, bytes]] | None = None,
    shard_bytes: int = SHARD_BYTES,
) -> Part:
    """Writes the files of one part into a folder.

    records: (index of the example, what `encode` gives) of those to write, in their order, made one by one as they are
    asked for; None: all. Raises OSError where the disk is full.
    """
    if records is None:
        records = (
            (i, encode(examples.read(i), name=examples.names(i))) for i in range(len(examples))
        )
    # what was written, not what was meant to be: an example that is left out is in neither
    written: list[tuple[int, int]] = []
    shards: list[Shard] = []
    waiting = next(records, None)
    while waiting is not None:
        path = folder / f"{name}-{len(shards):05}.array_record"
        before = len(written)
        waiting = _write_shard(path, waiting, records, written, shard_bytes)
        count = len(written) - before
        shards.append(Shard(file=path.name, records=count, size=path.stat().st_size))
    index = f"{name}.npz"
    indices, sizes = np.asarray(written, np.int64).reshape(-1, 2).T
    digest = write_index(folder / index, examples, indices, sizes=sizes)
    return Part(name=name, index=index, digest=digest, shards=tuple(shards))


def _write_shard(
    path: Path,
    first: tuple[int, bytes],
    records: Iterator[tuple[int, bytes]],
    written: list[tuple[int, int]],
    most: int,
) -> tuple[int, bytes] | None:
    """Fills one file and returns the record that is the next one's first; None at the end. written: gets the index of
    each example and the size of its picture."""
    from array_record.python.array_record_module import ArrayRecordWriter

    size, waiting = 0, first
    with closing(ArrayRecordWriter(str(path), OPTIONS)) as file:
        # a file has one record at least, however large that is
        while waiting is not None and (not size or size + len(waiting[1]) <= most):
            index, record = waiting
            file.write(record)
            size += len(record)
            written.append((index, len(decode(record)[1]["image"])))
            waiting = next(records, None)
    return waiting


def fields_of(examples: Examples) -> tuple[str, ...]:
    """The fields of a set that are packed. Raises DataError for a set that has others."""
    known = (*PICTURES, "label", "labels")
    others = [name for name in examples.field_names if name not in known]
    if others:
        raise DataError(
            f"examples with a field {escaped(others[0])!r} cannot be packed; a record has {', '.join(known)}"
        )
    return examples.field_names
