"""`wds:PATH`: webdataset's tar files, read by place."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.example import Field, Splits
from fmjax.data.folders import LeftOut, few, part_asked_for
from fmjax.data.images import Broken
from fmjax.data.labels import Labels, Rows, splits_of
from fmjax.data.shards import below, files_by_part
from fmjax.data.strings import Strings, repeated
from fmjax.data.tars import BETWEEN, Samples, read_image, samples
from fmjax.errors import DataError, escaped


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The tar file at a path, or those of a folder. classes: those that there may be, in their order."""
    path, wanted = part_asked_for(place)
    files, found = files_by_part(path, (".tar",), scheme="wds")
    # the first time each file is read from end to end, its pictures skipped; later what was found is looked up
    shards = {
        role: [samples(file, config.label_column) for file in some] for role, some in files.items()
    }
    parts = {role: _rows(path, files[role], some) for role, some in shards.items()}
    every = [
        (file, one) for role in files for file, one in zip(files[role], shards[role], strict=True)
    ]
    return splits_of(
        parts,
        where=escaped(str(path)),
        known=classes or (),
        wanted=wanted,
        left_out=[*found.left_out(), *_left_out(every)],
    )


def _rows(root: Path, files: Sequence[Path], shards: Sequence[Samples]) -> Rows:
    """The samples of a part, in the order of its files."""
    tops = [below(root, file) for file in files]
    names = Strings.of(
        f"{top}/{key}" for top, one in zip(tops, shards, strict=True) for key in one.names
    )
    _check_names(names)
    ends = np.cumsum([len(one.names) for one in shards])
    sizes = np.concatenate([one.sizes for one in shards])
    return Rows(_images(files, shards, ends), _labels(shards), names, sizes=sizes)


def _images(files: Sequence[Path], shards: Sequence[Samples], ends: np.ndarray) -> Field:
    def image(index: int) -> bytes | Broken:
        # opened for each image: there may be more files than a process may have open
        shard = int(np.searchsorted(ends, index, side="right"))
        one = shards[shard]
        row = index - int(ends[shard]) + len(one.names)
        try:
            return read_image(files[shard], int(one.places[row]), int(one.sizes[row]))
        except (OSError, DataError) as error:
            return Broken(f"it cannot be read: {getattr(error, 'strerror', None) or error}")

    return image


def _labels(shards: Sequence[Samples]) -> Labels:
    # one file with lists makes all of them lists: a single label is a list of one
    texts = (text for one in shards for text in one.labels)
    if any(one.several for one in shards):
        return Labels.of_several(_split(text) for text in texts)
    return Labels.of(texts)


def _split(text: str) -> Iterator[str]:
    return filter(None, text.split(BETWEEN))


def _check_names(names: Strings) -> None:
    """Two samples of one name could not be told apart in a run's record."""
    twice = [names[later] for _, later in repeated(names)]
    if twice:
        raise DataError(
            f"{len(twice):,} samples are there twice ({few(twice, 3)}); rename or remove one of each"
        )


def _left_out(shards: Sequence[tuple[Path, Samples]]) -> list[LeftOut]:
    # the same reason in several files is one line, with the first example
    counts: dict[str, Any] = {}
    for file, one in shards:
        for reason, (count, first) in one.left_out.items():
            before = counts.get(reason, (0, f"{file.name}/{first}"))
            counts[reason] = (before[0] + count, before[1])
    return [LeftOut(reason, count, first) for reason, (count, first) in counts.items()]
