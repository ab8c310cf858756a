"""`arrayrecord:DIR`: a set that `fmjax data pack` has written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Examples, Field, Splits
from fmjax.data.folders import part_asked_for
from fmjax.data.images import Broken
from fmjax.data.labels import Labels
from fmjax.data.packed import AGAIN, Contents, Index, Part, read_contents, read_index
from fmjax.data.records import PICTURES, decode
from fmjax.errors import DataError, escaped


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The packed set in a folder. It has the classes that it has; a caller compares them."""
    root, wanted = part_asked_for(place)
    contents = read_contents(root)
    parts = {part.name: part for part in contents.parts}
    if wanted and wanted not in parts:
        raise DataError(f"{escaped(str(root))} has no {wanted} part; it has {', '.join(parts)}")
    # a part that was asked for stands alone, as a folder would
    chosen = [wanted] if wanted else list(parts)
    train, *val = [_examples(root, parts[name], contents) for name in chosen]
    return Splits(train, val[0] if val else None)


def _examples(root: Path, part: Part, contents: Contents) -> Examples:
    # sizes, then the index: a picture is first read when it is asked for
    records = _records(root, part)
    index = read_index(root / part.index, part=part, classes=len(contents.classes))
    read = _reader(records, index)
    pictures = [name for name in PICTURES if name in contents.fields]
    fields: dict[str, Field] = {name: _picture(read, name) for name in pictures}
    labels = index.labels
    if index.ends is not None:
        fields["labels"] = Labels(contents.classes, index.labels, index.ends).multi_hot()
        # no single class to split or balance by
        labels = np.zeros(part.records, np.int32)
    return Examples(
        fields=fields,
        labels=labels,
        classes=contents.classes,
        names=lambda i: index.names[i],
        sizes=index.sizes,
        labelled="label" in contents.fields,
    )


def _records(root: Path, part: Part) -> Any:
    """The records of a part, by number. Raises DataError where a file is not as long as it was written."""
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    for shard in part.shards:
        path = root / shard.file
        size = path.stat().st_size if path.is_file() else 0
        # the library takes a file that is cut short for one without records
        if size != shard.size:
            raise DataError(
                f"{escaped(str(path))} has {size:,} bytes, and {shard.size:,} were written; copy it again, or {AGAIN}"
            )
    try:
        found = ArrayRecordDataSource([str(root / shard.file) for shard in part.shards])
    except Exception as error:  # whatever the library makes of a damaged file
        reason = escaped(str(error), 200)
        raise DataError(
            f"the records in {escaped(str(root))} cannot be read: {reason}; {AGAIN}"
        ) from error
    if len(found) != part.records:
        raise DataError(
            f"the files of {escaped(str(root))} have {len(found):,} {part.name} records, and {part.records:,} were "
            f"written; copy them again, or {AGAIN}"
        )
    return found


def _reader(records: Any, index: Index) -> Callable[[int], Any]:
    """What reads one record: its example, or why there is none."""

    def read(number: int) -> Any:
        try:
            name, example = decode(records[number])
        except Exception as error:  # the library's own, for bytes that have changed
            return Broken(f"its record is damaged: {escaped(str(error), 160)}")
        # files that were swapped would give each image the label of another
        if name != index.names[number]:
            return Broken(f"its record is of {escaped(name, 60)}")
        return example

    return read


def _picture(read: Callable[[int], Any], name: str) -> Field:
    def field(number: int) -> Any:
        found = read(number)
        return (
            found
            if isinstance(found, Broken)
            else found.get(name, Broken(f"its record has no {name}"))
        )

    return field
