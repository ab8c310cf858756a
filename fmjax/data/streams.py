"""Parquet files on a web server as a set: footers and labels are read at the start, pictures as they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.arrow import columns_of, has_bytes, labels_of, row_names
from fmjax.data.cache import Arrays, kept
from fmjax.data.columns import Columns, find_columns
from fmjax.data.example import Splits, Stream
from fmjax.data.groups import (
    Group,
    Groups,
    Source,
    check_room,
    column_of,
    damaged,
    failing,
    footer_of,
)
from fmjax.data.labels import Labels, Rows, splits_of
from fmjax.data.sampling import mixing_note
from fmjax.errors import DataError, escaped, in_bytes
from fmjax.store.http import Session
from fmjax.store.ranges import Remote, end, read
from fmjax.store.record import cache_folder

MAGIC = b"PAR1"
FOOTER = 1 << 16  # bytes that are read of a file at first, which most footers are shorter than
MAX_FOOTER = 1 << 27
FILES = 8  # that are looked at at once
MIB, GIB = 1 << 20, 1 << 30


def streamed(
    parts: Mapping[str, Sequence[tuple[str, Remote]]],
    config: ImagesConfig,
    *,
    where: str,
    classes: Sequence[str] = (),
    wanted: str = "",
) -> Splits:
    """The set in some files, none of whose pictures is fetched yet.

    parts: name and place of the files of each part. where: what they are, as a sentence may call it. classes: those
    that there may be, in their order. wanted: the one part that was asked for. Raises DataError for what cannot be
    reached, is no Parquet file or has no pictures and labels.
    """
    # one row of groups for all parts, so that a part of a part still knows its own by their number
    files = [file for some in parts.values() for file in some]
    with ThreadPoolExecutor(FILES) as pool:
        opened = list(pool.map(partial(_opened, config=config, where=where), files))
    sources = [source for source, _ in opened]
    footers = [footer_of(source, where) for source in sources]
    schemas = [_schema(*one, where) for one in zip(footers, sources, strict=True)]
    names = [PurePosixPath(source.name) for source in sources]
    columns, declared = columns_of(schemas, names, config, where=where)
    pictures = _pictures(sources, footers, schemas[0], columns, config, where)
    # the labels of a part are those of its files, which follow each other
    rows, first, window = {}, 0, config.stream_window_mib * MIB
    for role, some in parts.items():
        here = range(first, first + len(some))
        column = _joined([opened[place][1] for place in here])
        labels = labels_of(column, columns, declared, where)
        rows[role] = _rows(pictures, here, labels, window)
        first = here.stop
    found = splits_of(rows, where=where, known=classes, declared=declared, wanted=wanted)
    notes = [_note(where, pictures, config), *found.notes, *mixing_note(found.train)]
    return replace(found, notes=tuple(notes))


def _pictures(
    sources: Sequence[Source],
    footers: Sequence[Any],
    schema: Any,
    columns: Columns,
    config: ImagesConfig,
    where: str,
) -> Groups:
    """The pictures of all files, by row group."""
    leaf = columns.image
    # of a picture with its path, the bytes alone
    if has_bytes(schema.field(leaf).type):
        leaf = f"{leaf}.bytes"
    groups: list[Group] = []
    for place, (source, footer) in enumerate(zip(sources, footers, strict=True)):
        groups += _groups(source, footer, place, leaf, where)
    limit = int(config.stream_cache_gib * GIB)
    check_room(groups, config.stream_window_mib * MIB, limit, where)
    return Groups(sources, groups, column=leaf, limit=limit, where=where)


def _rows(pictures: Groups, files: range, labels: Labels, window: int) -> Rows:
    """The rows of some files, which follow each other."""
    every = pictures.groups
    numbers = [number for number, group in enumerate(every) if group.source in files]
    groups = [every[number] for number in numbers]
    counts = [group.rows for group in groups]
    first = pictures.first(numbers[0]) if numbers else 0
    by_file = dict.fromkeys(files, 0)
    for group in groups:
        by_file[group.source] += group.rows
    tops = [(pictures.sources[place].name, count) for place, count in by_file.items()]
    # no footer has the size of a picture: that of its row group stands for it, which another picture changes
    sizes = np.asarray([group.length for group in groups], np.int64)
    lie = np.asarray(numbers, np.int32)
    stream = Stream(np.repeat(lie, counts), np.repeat(sizes, counts), window, pictures.ahead)
    return Rows(
        lambda row: pictures(first + row),
        labels,
        row_names(tops),
        sizes=stream.weights,
        stream=stream,
    )


def _note(where: str, pictures: Groups, config: ImagesConfig) -> str:
    groups = pictures.groups
    total = in_bytes(sum(group.length for group in groups))
    return (
        f"{where} is read as it is needed: {total} of pictures in {len(groups):,} row groups, of which "
        f"{config.stream_window_mib:,} MiB are shuffled together and {config.stream_cache_gib:g} GiB at most lie in "
        f"{escaped(str(cache_folder() / 'stream'))}"
    )


def _opened(file: tuple[str, Remote], *, config: ImagesConfig, where: str) -> tuple[Source, Arrays]:
    """A file, its footer, and its labels as `_read` has them."""
    name, remote = file
    with failing(where), Session() as session:
        if not remote.commit:
            remote, _ = end(session, remote, len(MAGIC))
            # content that changes would be another set in the middle of a run
            if not remote.validator:
                raise DataError(
                    f"{where}: its host gives neither an ETag nor a date, so that a change would not be seen; "
                    f"download it, and leave --data.stream out"
                )
        key = {
            "address": remote.address,
            "size": remote.size,
            "validator": remote.validator,
            "columns": [config.image_column, config.label_column],
        }
        # what a commit has never changes: the next start asks for nothing
        arrays = kept("streams", key, lambda: _read(session, name, remote, config, where))
    return Source(name, remote, arrays["footer"].tobytes()), arrays


def _read(session: Session, name: str, remote: Remote, config: ImagesConfig, where: str) -> Arrays:
    """The footer of a file, and its labels as an Arrow stream, both as bytes."""
    import pyarrow as pa

    source = Source(name, remote, _footer(session, name, remote, where))
    footer = footer_of(source, where)
    schema = _schema(footer, source, where)
    label = find_columns(schema.names, config, where=where).label
    # a set without labels is refused later on, by the columns of all of its files
    chunks, kind = [], pa.null()
    if label:
        kind = schema.field(label).type
        for number in range(footer.num_row_groups):
            start, length, rows = _span(source, footer.row_group(number), label, where)
            content = read(session, remote, start, length) if rows else b""
            piece = column_of(source, footer, number, label, start, content, where)
            if len(piece) != rows:
                raise damaged(where, source, f"{len(piece):,} labels in a group of {rows:,}")
            chunks += piece.chunks
    return {
        "footer": np.frombuffer(source.footer, np.uint8),
        "labels": _as_bytes(pa.chunked_array(chunks, kind)),
    }


def _as_bytes(column: Any) -> np.ndarray:
    import pyarrow as pa

    table, out = pa.table({"label": column}), pa.BufferOutputStream()
    with pa.ipc.new_stream(out, table.schema) as stream:
        stream.write_table(table)
    return np.frombuffer(out.getvalue(), np.uint8)


def _joined(files: Sequence[Arrays]) -> Any:
    """The labels of some files."""
    import pyarrow as pa

    tables = [pa.ipc.open_stream(arrays["labels"].tobytes()).read_all() for arrays in files]
    return pa.concat_tables(tables).column("label")


def _footer(session: Session, name: str, remote: Remote, where: str) -> bytes:
    """The end of a Parquet file, which says what lies where: its length and a mark are the last 8 bytes."""
    _, last = end(session, remote, FOOTER)
    length = int.from_bytes(last[-8:-4], "little") + 8
    if last[-4:] != MAGIC or not 12 < length <= min(remote.size, MAX_FOOTER):
        raise damaged(where, Source(name, remote, b""), "it is no whole Parquet file")
    if length > len(last):
        last = read(session, remote, remote.size - length, length)
    return last[-length:]


def _schema(footer: Any, source: Source, where: str) -> Any:
    """The names and kinds of a file's columns."""
    import pyarrow as pa

    try:
        return footer.schema.to_arrow_schema()
    except (pa.ArrowException, OSError) as error:
        raise damaged(where, source, str(error)) from error


def _span(source: Source, group: Any, column: str, where: str) -> tuple[int, int, int]:
    """(where a column of a row group lies in its file, its length in bytes, how many rows it has)."""
    columns = [group.column(place) for place in range(group.num_columns)]
    # a list of labels is a column below the one that has the name
    found = [one for one in columns if f"{one.path_in_schema}.".startswith(f"{column}.")]
    if len(found) != 1:
        raise damaged(where, source, f"{len(found)} columns called {column}")
    firsts = [found[0].data_page_offset]
    if found[0].has_dictionary_page:
        firsts.append(found[0].dictionary_page_offset)
    start, length, rows = min(firsts), found[0].total_compressed_size, group.num_rows
    # nothing of a footer is believed: what it says is asked of the host
    empty = rows > 0 and length <= 0
    if empty or min(start, length, rows) < 0 or start + length > source.remote.size:
        raise damaged(where, source, "a row group lies outside of it")
    return start, length, rows


def _groups(source: Source, footer: Any, place: int, column: str, where: str) -> list[Group]:
    """The row groups of a file that have rows. place: of the file among all."""
    groups = []
    for number in range(footer.num_row_groups):
        start, length, rows = _span(source, footer.row_group(number), column, where)
        if rows:
            groups.append(Group(place, number, rows, start, length))
    return groups
