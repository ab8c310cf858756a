"""`parquet:PATH`: Parquet files with the bytes of an image in each row, as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fmjax.config.data import ImagesConfig
from fmjax.data.arrow import copied, copy_note, rows_of
from fmjax.data.example import Splits
from fmjax.data.folders import part_asked_for
from fmjax.data.labels import splits_of
from fmjax.data.shards import files_by_part
from fmjax.errors import escaped


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The Parquet file at a path, or those of a folder. classes: those that there may be, in their order."""
    path, wanted = part_asked_for(place)
    return parquet_files(path, config, classes=classes or (), wanted=wanted)


def parquet_files(
    path: Path,
    config: ImagesConfig,
    *,
    classes: Sequence[str] = (),
    wanted: str = "",
    scheme: str = "parquet",
) -> Splits:
    """The images of Parquet files, by the part that their names tell."""
    files, found = files_by_part(path, (".parquet",), scheme=scheme)
    parts, declared, size = {}, (), 0
    # every part is copied, as the next run may ask for another one
    for role, some in files.items():
        arrows = [copied(file) for file in some]
        size += sum(made for _, made in arrows)
        parts[role], listed = rows_of(path, some, [arrow for arrow, _ in arrows], config)
        declared = declared or listed
    return splits_of(
        parts,
        where=escaped(str(path)),
        known=classes,
        declared=declared,
        wanted=wanted,
        left_out=found.left_out(),
        notes=copy_note(sum(map(len, files.values())), size),
    )
