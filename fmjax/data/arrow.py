"""Tables with pictures in them, as Hugging Face writes them: Arrow files, mapped into memory and read by row.

Parquet is compressed in groups of rows, so that one picture costs a whole group: it is copied once into an Arrow file
in fmjax's cache folder, which any row can be read from.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from fmjax.config.data import ImagesConfig
from fmjax.data.cache import state_of
from fmjax.data.columns import Columns, find_columns
from fmjax.data.folders import few
from fmjax.data.images import Broken, check_regular
from fmjax.data.labels import Labels, Rows
from fmjax.data.shards import below
from fmjax.data.strings import Strings
from fmjax.errors import DataError, escaped, in_bytes
from fmjax.store.record import cache_folder, cache_place, held
from weights_conversion.writer import whole

PIECE = 256  # rows that are copied at a time
UNLABELLED = -1  # what Hugging Face writes where there is no label


def mapped(path: Path) -> Any:
    """The table in an Arrow file or stream, none of whose pictures is read yet. Raises DataError for a damaged one."""
    import pyarrow as pa

    # never a pipe, whose end the library would wait for
    _state(path)
    try:
        table = _table(pa, path)
        # places inside the file are followed unchecked ever after: they are checked once
        table.validate(full=True)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error
    return table


def _table(pa: Any, path: Path) -> Any:
    file = pa.memory_map(str(path))
    try:
        return pa.ipc.open_file(file).read_all()
    except pa.ArrowInvalid:
        # a file has a list of its pieces at its end, a stream has none
        file.seek(0)
        return pa.ipc.open_stream(file).read_all()


def _damaged(path: Path, error: Exception) -> DataError:
    reason = escaped(str(error).splitlines()[0], 160) if str(error) else type(error).__name__
    return DataError(f"{escaped(str(path))} cannot be read: {reason}; copy or download it again")


def copied(path: Path) -> tuple[Path, int]:
    """(the Arrow file of a Parquet file's table, how many bytes had to be copied now).

    Raises DataError for a damaged file, and where the cache has no room for the copy.
    """
    key = json.dumps([os.path.abspath(path), *_state(path)])
    copy = cache_place("arrow", key, ".arrow")
    if copy.is_file():
        return copy, 0
    try:
        # one process copies, the others of this machine wait for it
        with held(copy.stem):
            if not copy.is_file():
                _copy(path, copy)
    except OSError as error:
        folder = escaped(str(copy.parent))
        raise DataError(
            f"{escaped(str(path))} cannot be copied to {folder} ({error.strerror or error}), from where "
            f"single rows are read; free some space there, or set FMJAX_CACHE to a folder on another disk"
        ) from error
    return copy, copy.stat().st_size


def _state(path: Path) -> list[int]:
    try:
        check_regular(os.stat(path).st_mode)
        return state_of(path)
    except (OSError, DataError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{escaped(str(path))} cannot be opened: {reason}") from error


def _copy(path: Path, copy: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # memory holds a piece at a time, however large the groups of the file are
    try:
        with (
            pq.ParquetFile(path) as table,
            whole(copy, path.stat().st_size) as file,
            pa.ipc.new_file(file, table.schema_arrow) as out,
        ):
            for piece in table.iter_batches(PIECE):
                out.write_batch(piece)
    except (pa.ArrowException, OSError) as error:
        # the system's errors have a number, a damaged page has none
        if getattr(error, "errno", None):
            raise
        raise _damaged(path, error) from error


def rows_of(
    root: Path,
    files: Sequence[Path],
    arrows: Sequence[Path],
    config: ImagesConfig,
) -> tuple[Rows, tuple[str, ...]]:
    """(the rows of some files, one behind the other, the classes that the files list, () for none).

    arrows: the same as Arrow files. Raises DataError for columns that are not those of images and labels, or that
    differ between the files.
    """
    import pyarrow as pa

    tables = [mapped(path) for path in arrows]
    where = escaped(str(root))
    columns, classes = columns_of([one.schema for one in tables], files, config, where=where)
    table = pa.concat_tables(tables)
    _check_bytes(table.column(columns.image), columns.image, where)
    image = Pictures(partial(_chunks, arrows, columns.image))
    labels = labels_of(table.column(columns.label), columns, classes, where)
    tops = [(below(root, file), len(one)) for file, one in zip(files, tables, strict=True)]
    return Rows(image, labels, row_names(tops), sizes=image.sizes()), classes


def row_names(files: Iterable[tuple[str, int]]) -> Strings:
    """What the rows of some files are called. files: the name of each, and how many rows it has."""
    return Strings.of(f"{name}:{row}" for name, count in files for row in range(count))


def columns_of(
    schemas: Sequence[Any], files: Sequence[PurePath], config: ImagesConfig, *, where: str
) -> tuple[Columns, tuple[str, ...]]:
    """(which columns of some files are the pictures and the labels, the classes that the files list).

    Raises DataError for columns that are of other kinds, or that differ between the files.
    """
    first, name = schemas[0], escaped(files[0].name)
    for file, schema in zip(files, schemas, strict=True):
        # what the first file has holds for all, or labels of one would be read as those of another
        if not schema.equals(first):
            raise DataError(
                f"{escaped(file.name)} has other columns, or kinds of them, than {name}; write both alike"
            )
    columns = find_columns(first.names, config, where=where)
    if not columns.label:
        raise DataError(
            f"{where} has no column of labels: it has {few(first.names)}; name it with --data.label-column"
        )
    _check_kind(first.field(columns.image).type, columns.image, where)
    classes = _class_names(first, columns.label)
    # the names of numbers lie beside the columns, and each file has its own
    for file, schema in zip(files, schemas, strict=True):
        if _class_names(schema, columns.label) != classes:
            raise DataError(
                f"{escaped(file.name)} has other names for its labels than {name}; write both alike"
            )
    return columns, classes


def _class_names(schema: Any, column: str) -> tuple[str, ...]:
    """The names that Hugging Face keeps beside a column of numbers; () where there are none."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        feature = features[column]
        # of a list of labels the names are those of its elements
        feature = feature if "names" in feature else feature.get("feature", feature)
        return tuple(str(name) for name in feature["names"])
    except (ValueError, LookupError, TypeError, AttributeError):
        return ()


def _pieces(column: Any) -> list[Any]:
    """The pieces of a column, those of its bytes where it has them in a field."""
    if not has_bytes(column.type):
        return list(column.chunks)
    return [chunk.field("bytes") for chunk in column.chunks]


def has_bytes(kind: Any) -> bool:
    """Whether a picture is a record with its bytes in a field, as Hugging Face writes it."""
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def _check_kind(kind: Any, name: str, where: str) -> None:
    """Raises DataError for a column that holds no pictures."""
    import pyarrow as pa

    kind = kind.field("bytes").type if has_bytes(kind) else kind
    if not (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
        raise DataError(
            f"the column {escaped(name)!r} of {where} has {escaped(str(kind), 60)}, not the bytes of pictures; "
            f"write files' contents, as Hugging Face's Image does, or name another with --data.image-column"
        )


def _check_bytes(column: Any, name: str, where: str) -> None:
    """Raises DataError for a column of paths alone: what they are of lies on the machine that wrote it."""
    chunks = _pieces(column)
    rows = sum(map(len, chunks))
    if rows and sum(chunk.null_count for chunk in chunks) == rows:
        raise DataError(
            f"the column {escaped(name)!r} of {where} has no bytes in any row; write the pictures into the file, as "
            f"push_to_hub does, or pass them as a folder: or csv:"
        )


class Pictures:
    """The pictures of all rows by number. Another process maps the files for itself: their bytes are the whole set."""

    def __init__(self, chunks: Callable[[], list[Any]]) -> None:
        self._again = chunks
        self._open()

    def _open(self) -> None:
        self._chunks = self._again()
        self._ends = np.cumsum([len(chunk) for chunk in self._chunks])

    def __getstate__(self) -> Callable[[], list[Any]]:
        return self._again

    def __setstate__(self, again: Callable[[], list[Any]]) -> None:
        self._again = again
        self._open()

    def __call__(self, index: int) -> bytes | Broken:
        place = int(np.searchsorted(self._ends, index, side="right"))
        found = self._chunks[place][index - int(self._ends[place])].as_py()
        return Broken("its row has no bytes") if found is None else found

    def sizes(self) -> np.ndarray:
        """int64 [N]: of each picture in bytes, -1 where there is none."""
        import pyarrow.compute

        pc: Any = pyarrow.compute

        lengths = [pc.fill_null(pc.binary_length(chunk), -1) for chunk in self._chunks]
        return np.concatenate([np.asarray(each, np.int64) for each in lengths])


def _chunks(files: Sequence[Path], column: str) -> list[Any]:
    """The pieces of a column of pictures, of Arrow files that were looked at before."""
    import pyarrow as pa

    return [chunk for file in files for chunk in _pieces(_table(pa, file).column(column))]


def labels_of(column: Any, columns: Columns, names: tuple[str, ...], where: str) -> Labels:
    """The labels of all rows, by name. Raises DataError for what is no label."""
    import pyarrow as pa

    kind, name, separator = column.type, columns.label, columns.separator
    several = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if several:
        kind = kind.value_type
    if not (pa.types.is_integer(kind) or _is_text(kind)) or pa.types.is_dictionary(kind):
        raise DataError(
            f"the column {escaped(name)!r} of {where} has {escaped(str(column.type), 60)}; a label is a whole number "
            f"or a text, or a list of them: name another with --data.label-column"
        )
    # a piece at a time: as Python's own objects a column of millions would take gigabytes
    cells = (cell for chunk in column.chunks for cell in chunk.to_pylist())
    if separator and _is_text(kind) and not several:
        return Labels.of_several(_parted(cell, separator) for cell in cells)
    if several:
        return Labels.of_several(
            [_spelled(each, names, name, where) for each in cell or ()] for cell in cells
        )
    return Labels.of(_spelled(cell, names, name, where) for cell in cells)


def _parted(cell: str | None, separator: str) -> list[str]:
    """The labels in one text."""
    parts = [each.strip() for each in (cell or "").split(separator)]
    return [each for each in parts if each]


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _spelled(cell: Any, names: tuple[str, ...], column: str, where: str) -> str:
    if cell is None or cell in (UNLABELLED, ""):
        raise DataError(
            f"{where} has rows without a label in the column {escaped(column)!r}; take them out, or name another "
            f"column with --data.label-column"
        )
    if not names or not isinstance(cell, int):
        return str(cell)
    if not 0 <= cell < len(names):
        raise DataError(
            f"{where} has the label {cell}, and names {len(names)} classes; write it again"
        )
    return names[cell]


def copy_note(files: int, size: int) -> list[str]:
    """What is said of a copy that was made now."""
    if not size:
        return []
    place = escaped(str(cache_folder() / "arrow"))
    return [
        f"{files:,} Parquet files were copied to {place}, {in_bytes(size)}, so that rows can be read one by one"
    ]
