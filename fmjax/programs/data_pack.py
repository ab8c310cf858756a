"""`fmjax data pack`: a set in a few large files, in the order that it has, and with its bytes or with its pixels."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.config.sets import DataPackConfig
from fmjax.console import console, counted
from fmjax.data.batches import BadImages
from fmjax.data.example import Examples, Splits
from fmjax.data.images import Picture, Unreadable
from fmjax.data.packed import Contents, Part, write_contents
from fmjax.data.records import content, encode, fields_of, write_part
from fmjax.data.shrunk import pixels
from fmjax.data.sources import open_source
from fmjax.errors import DataError, FilesError, Stopped, UsageError, escaped, in_bytes, sentence
from fmjax.targets import check_writable

AHEAD = 4  # files that are read before their turn, for each thread
MIB = 1 << 20
SAMPLE = 16  # pictures of a part by which is told what all of them take as pixels
BESIDE_RECORDS = 256  # bytes that an image takes beside its file, about: head, index, list


def main(config: DataPackConfig) -> Path:
    """Writes the folder and returns it. Raises UsageError for one that is there, FilesError where it cannot be made."""
    out = Path(config.out).expanduser()
    # all that can be refused is, before anything is read
    if os.path.lexists(out):
        raise UsageError(
            f"--out {str(out)!r} exists, and a packed set is written anew; name another folder, or remove it"
        )
    check_writable(out.parent)
    splits = open_source(config.data)
    for note in splits.notes:
        console.print(note)
    for examples in _parts(splits).values():
        _check_fields(config, examples)
    _check_room(config, out, splits)
    try:
        size = _write(config, out, splits)
    except KeyboardInterrupt:
        raise Stopped(
            f"stopped, having written nothing to {out}; run the same command again"
        ) from None
    except OSError as error:
        raise FilesError(
            f"{out} cannot be written: {sentence(error)}; nothing of it is left"
        ) from error
    numbers = [f"{len(examples):,} {role}" for role, examples in _parts(splits).items()]
    console.print(f"packed    {', '.join(numbers)}, {in_bytes(size)} in {out}")
    console.print(f"use it    --data.source arrayrecord:{out}")
    return out


def _parts(splits: Splits) -> dict[str, Examples]:
    val = {} if splits.val is None else {"val": splits.val}
    return {"train": splits.train, **val}


def _check_fields(config: DataPackConfig, examples: Examples) -> None:
    """Raises DataError for a set that has more than a record has, UsageError for masks of pictures to be shrunk."""
    fields_of(examples)
    if config.short_edge and "mask" in examples.field_names:
        raise UsageError(
            f"--short-edge is {config.short_edge}, and the set has masks, which no filter shrinks; leave it out"
        )


def _check_room(config: DataPackConfig, out: Path, splits: Splits) -> None:
    """Raises FilesError where the disk has less than the pictures take, as far as that can be told."""
    parts = _parts(splits).values()
    if config.short_edge:
        need = sum(_pixels_of(config, examples) for examples in parts)
    else:
        # packed pictures are the bytes that they are
        files = [path for examples in parts for path in (*examples.files, *examples.masks)]
        need = sum(map(_size, files)) + BESIDE_RECORDS * len(files)
    there = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(there).free
    if free < need:
        raise FilesError(
            f"{out} would take {in_bytes(need)}, and the disk has {in_bytes(free)}; make room, or name another place"
        )


def _pixels_of(config: DataPackConfig, examples: Examples) -> int:
    """About how many bytes the records of a part take, by some of its pictures."""
    pack, found = _way(config), []
    for index in np.linspace(0, len(examples) - 1, min(SAMPLE, len(examples)), dtype=int):
        # what cannot be opened is named when it is packed
        with suppress(Unreadable):
            found.append(len(pack(examples.fields["image"](int(index)))))
    return round(np.mean(found or [0]) + BESIDE_RECORDS) * len(examples)


def _way(config: DataPackConfig) -> Callable[[Picture], bytes]:
    """What makes of a picture the file that a record has."""
    if not config.short_edge:
        return content
    return partial(pixels, shorter=config.short_edge, max_pixels=config.data.max_pixels)


def _size(path: Path) -> int:
    # what cannot be opened is named when it is read
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _write(config: DataPackConfig, out: Path, splits: Splits) -> int:
    """Writes the folder whole or not at all, and returns its size in bytes."""
    out.parent.mkdir(parents=True, exist_ok=True)
    # beside its place: a rename within one file system is all or nothing
    begun = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        parts = [
            _packed(config, begun, role, examples) for role, examples in _parts(splits).items()
        ]
        classes = splits.train.classes
        write_contents(
            begun,
            Contents(classes=classes, fields=fields_of(splits.train), parts=tuple(parts)),
        )
        # as another user may have to read it: a temporary folder is its owner's alone
        begun.chmod(0o777 & ~_umask())
        size = sum(file.stat().st_size for file in begun.iterdir())
        begun.rename(out)
    except BaseException:
        shutil.rmtree(begun, ignore_errors=True)
        raise
    return size


def _umask() -> int:
    # there is no way to read it but to set it
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _packed(config: DataPackConfig, folder: Path, role: str, examples: Examples) -> Part:
    """The files of one part, whose names are those below the source's own folder."""
    named = _named(config.data, examples)
    bad = BadImages(named, config.data.max_bad, config.data.max_bad_share)
    # closed where it ends in the middle, so that no thread is left behind
    with closing(_records(named, config, bad)) as records:
        rows = counted(((1, row) for row in records), len(named), f"{role} images")
        part = write_part(
            folder, role, named, records=iter(rows), shard_bytes=config.shard_mb * MIB
        )
    if part.records == 0:
        raise DataError(f"no {role} image can be opened; `fmjax data check` says why")
    _check_written(folder, part)
    return part


def _check_written(folder: Path, part: Part) -> None:
    """Raises FilesError where a file does not hold what was written: the library says nothing of some failures."""
    from array_record.python.array_record_module import ArrayRecordReader

    for shard in part.shards:
        with closing(ArrayRecordReader(str(folder / shard.file))) as file:
            found = file.num_records()
        if found != shard.records:
            raise FilesError(
                f"{shard.file} was written with {shard.records:,} records and has {found:,}; is the disk full?"
            )


def _named(data: ImagesConfig, examples: Examples) -> Examples:
    if not examples.files:
        return examples
    folder = os.path.join(Path(data.source.partition(":")[2]).expanduser(), "")
    names = examples.names
    return replace(examples, names=lambda i: names(i).removeprefix(folder).replace(os.sep, "/"))


def _records(
    examples: Examples, config: DataPackConfig, bad: BadImages
) -> Generator[tuple[int, bytes], None, None]:
    """(index, record) of each example in order, its files read ahead by threads; one that cannot be opened is named
    and left out, as a run does, up to the same bounds."""

    pack = _way(config)

    def encoded(index: int) -> bytes:
        return encode(examples.read(index), name=examples.names(index), packed=pack)

    ahead = AHEAD * config.data.threads
    waiting: deque[Future[bytes]] = deque()
    pool = ThreadPoolExecutor(config.data.threads)
    try:
        for index in range(len(examples) + ahead):
            if index < len(examples):
                waiting.append(pool.submit(encoded, index))
            done = index - ahead
            # what was begun so many places before is first in line
            if done < 0:
                continue
            try:
                yield done, waiting.popleft().result()
            except Unreadable as error:
                for found in bad.count({done: error.reason}):
                    console.print(f"unreadable image left out: {escaped(found, 300)}")
    finally:
        pool.shutdown(cancel_futures=True)
