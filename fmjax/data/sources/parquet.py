"""`parquet:PATH`: Parquet files with the bytes of an image in each row, as Hugging Face writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from fmjax.config.data import ImagesConfig
from fmjax.data.arrow import copied, copy_note, rows_of
from fmjax.data.example import Splits
from fmjax.data.folders import part_asked_for
from fmjax.data.groups import failing
from fmjax.data.labels import splits_of
from fmjax.data.shards import files_by_part
from fmjax.data.streams import streamed
from fmjax.errors import UsageError, escaped
from fmjax.store.addresses import check
from fmjax.store.network import contact
from fmjax.store.ranges import Remote

WEB = ("http://", "https://")


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The Parquet file at a path or an address, or those of a folder. classes: those that there may be, in order."""
    if place.startswith(WEB):
        return _streamed(place, config, classes or ())
    path, wanted = part_asked_for(place)
    return parquet_files(path, config, classes=classes or (), wanted=wanted)


def _streamed(address: str, config: ImagesConfig, classes: Sequence[str]) -> Splits:
    """The Parquet file at a web address."""
    remote = Remote(address)
    where = f"parquet:{remote}"
    if not config.stream:
        raise UsageError(f"{where} is read from there with --data.stream; else download it")
    # without the query, which may be a signature of today's
    name = PurePosixPath(urlsplit(address).path).name or "file"
    with failing(where):
        check(address, "--data.source")
        contact(address)
    return streamed({"": [(name, remote)]}, config, where=where, classes=classes)


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
