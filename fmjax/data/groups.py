"""The pictures of a stream: a row group of a Parquet file at a time, fetched when one of its rows is asked for, and
kept on disk for as long as there is room.

On disk, as all threads and worker processes of a machine share it there, and memory stays what it is.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fmjax.data.arrow import has_bytes
from fmjax.data.images import Broken
from fmjax.errors import CheckpointError, DataError, escaped, in_bytes
from fmjax.store.http import Session
from fmjax.store.ranges import Remote, read
from fmjax.store.record import cache_folder, cache_place, held
from weights_conversion.writer import whole

FETCHES = 4  # at a time in one process, which bounds what memory they take
FETCHERS = 2  # threads that fetch ahead
LOCKS = 64  # of all groups together, so that the cache folder is not full of them
SUFFIX = ".pictures"
TRIES = 5  # to read what other runs on this machine throw out of a cache that is too small for all


@dataclass(frozen=True)
class Source:
    """A Parquet file that is read by place. footer: its last bytes, which say what lies where."""

    name: str  # as examples are named by it
    remote: Remote
    footer: bytes


@dataclass(frozen=True)
class Group:
    """The pictures of a row group."""

    source: int  # which file
    number: int  # of the group in the file
    rows: int
    start: int  # of the column's bytes in the file
    length: int


class Pieces(io.RawIOBase):
    """A file of which some bytes are here: all that a library asks for which has the file's footer already."""

    def __init__(self, size: int, start: int, content: bytes) -> None:
        super().__init__()
        self._size, self._start, self._content, self._place = size, start, content, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._place = {os.SEEK_SET: 0, os.SEEK_CUR: self._place, os.SEEK_END: self._size}[whence]
        self._place += offset
        return self._place

    def readinto(self, buffer: Any, /) -> int:
        first = self._place - self._start
        last = first + len(buffer)
        # a footer that leads elsewhere is damaged
        if first < 0 or last > len(self._content):
            raise OSError("a footer that names bytes outside of its columns")
        buffer[:] = self._content[first:last]
        self._place += len(buffer)
        return len(buffer)


class Groups:
    """The pictures of all rows by number, and what fetches them ahead. Another process has connections of its own.

    column: of the pictures. limit: bytes that row groups may take on disk, those of other sets among them. where: what
    is streamed, as a sentence may call it.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        groups: Sequence[Group],
        *,
        column: str,
        limit: int,
        where: str,
    ) -> None:
        self.sources, self.groups = sources, groups
        self._column, self._limit, self._where = column, limit, where
        self._ends = np.cumsum([group.rows for group in groups])
        self._begin()

    def _begin(self) -> None:
        self._fetches = threading.BoundedSemaphore(FETCHES)
        self._waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
        self._asked: set[int] = set()
        self._fetchers: list[threading.Thread] = []

    def __getstate__(self) -> dict[str, Any]:
        own = ("_fetches", "_waiting", "_asked", "_fetchers")
        return {name: value for name, value in vars(self).items() if name not in own}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def __call__(self, index: int) -> bytes | Broken:
        """The picture of a row. Raises DataError where it cannot be fetched: no example is left out for the network."""
        number = int(np.searchsorted(self._ends, index, side="right"))
        group = self.groups[number]
        row = index - self.first(number)
        for _ in range(TRIES):
            # gone in between, where several runs have not enough room
            with contextlib.suppress(FileNotFoundError):
                return _picture(self._there(number), group.rows, row)
        raise DataError(
            f"{self._where}: {cache_folder()} loses row groups faster than they are read, to those of other runs; "
            f"raise --data.stream-cache-gib, or set FMJAX_CACHE to another folder for each run"
        )

    def first(self, number: int) -> int:
        """The number of the first row of a group."""
        return int(self._ends[number]) - self.groups[number].rows

    def ahead(self, number: int) -> None:
        """Has a group fetched by another thread. What goes wrong there, whoever needs a row meets again."""
        if number in self._asked:
            return
        self._asked.add(number)
        self._waiting.put(number)
        # daemons, as a run may end in the middle of a download
        if len(self._fetchers) < FETCHERS:
            thread = threading.Thread(target=self._fetch_ahead, daemon=True)
            self._fetchers.append(thread)
            thread.start()

    def _fetch_ahead(self) -> None:
        while True:
            number = self._waiting.get()
            # what is no DataError, too: a thread that dies of it would print its stack and fetch nothing any more
            with contextlib.suppress(Exception):
                self._there(number)
            # it may be thrown out again before the next epoch needs it
            self._asked.discard(number)

    def _there(self, number: int) -> Path:
        """The file of a group on disk, fetched where it is not there. Raises DataError with the reason."""
        path = self._place(number)
        try:
            # what was used last is thrown out last
            os.utime(path)
            return path
        except OSError:
            pass
        try:
            # one process of this machine fetches, the others wait for it
            with self._fetches, held(f"stream {int(path.stem, 16) % LOCKS}"):
                if not path.exists():
                    self._fetch(number, path)
        except OSError as error:
            folder = escaped(str(path.parent))
            raise DataError(
                f"a row group of {self._where} cannot be written to {folder} ({error.strerror or error}); free some "
                f"space there, lower --data.stream-cache-gib, or set FMJAX_CACHE to a folder on another disk"
            ) from error
        return path

    def _place(self, number: int) -> Path:
        group = self.groups[number]
        remote = self.sources[group.source].remote
        # whatever run it is of: what a commit has, or an ETag names, is the same for all
        key = repr((remote.address, remote.size, remote.validator, self._column, group))
        return cache_place("stream", key, SUFFIX)

    def _fetch(self, number: int, path: Path) -> None:
        group = self.groups[number]
        source = self.sources[group.source]
        with failing(self._where), Session() as session:
            content = read(session, source.remote, group.start, group.length)
        footer = footer_of(source, self._where)
        column = column_of(
            source, footer, group.number, self._column, group.start, content, self._where
        )
        if len(column) != group.rows:
            raise damaged(self._where, source, f"{len(column):,} rows in a group of {group.rows:,}")
        # whole or not at all, as other threads and processes read what lies there
        with whole(path, group.length) as file:
            for piece in _written(column):
                file.write(piece)
        throw_out(path.parent, self._limit, kept=path.name)


def footer_of(source: Source, where: str) -> Any:
    """What lies where in a file, and the kinds of its columns. Raises DataError for a damaged one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_metadata(pa.BufferReader(source.footer))
    except (pa.ArrowException, OSError) as error:
        raise damaged(where, source, str(error)) from error


def column_of(
    source: Source,
    footer: Any,
    number: int,
    column: str,
    start: int,
    content: bytes,
    where: str,
) -> Any:
    """A column of a row group, out of the file's bytes from a place on. footer: as of `footer_of`. Raises DataError for
    damaged bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    # all that is looked for lies in these bytes: the footer is here
    try:
        file = Pieces(source.remote.size, start, content)
        with pq.ParquetFile(file, metadata=footer, pre_buffer=False) as table:
            found = table.read_row_group(number, columns=[column], use_threads=False).column(0)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise damaged(where, source, str(error)) from error
    return found


def damaged(where: str, source: Source, reason: str) -> DataError:
    line = escaped((reason.strip().splitlines() or ["unknown why"])[0], 160)
    return DataError(
        f"{where}: {escaped(source.name)} is damaged: {line}; tell its publisher, or take another @COMMIT"
    )


@contextlib.contextmanager
def failing(where: str) -> Iterator[None]:
    """What the network does, as an error of the data that ends a run: a row that does not come is no bad picture."""
    try:
        yield
    except CheckpointError as error:
        raise DataError(
            f"{where} cannot be read: {error}; the same command goes on from the last checkpoint, and without "
            f"--data.stream a new run fetches the set first"
        ) from error


def _written(column: Any) -> Iterator[Any]:
    """A group as it lies on disk: the size of each picture as int64, -1 where there is none, then the pictures."""
    pieces = column.chunks
    if has_bytes(column.type):
        pieces = [chunk.field("bytes") for chunk in pieces]
    sizes, buffers = [], []
    for cell in (cell for piece in pieces for cell in piece):
        if cell.is_valid:
            buffers.append(cell.as_buffer())
        sizes.append(buffers[-1].size if cell.is_valid else -1)
    yield np.asarray(sizes, "<i8").tobytes()
    yield from buffers


def _picture(path: Path, rows: int, row: int) -> bytes | Broken:
    """One picture of a group on disk."""
    with path.open("rb") as file:
        sizes = np.frombuffer(file.read(8 * rows), "<i8")
        if sizes[row] < 0:
            return Broken("its row has no bytes")
        file.seek(int(np.maximum(sizes[:row], 0).sum()), os.SEEK_CUR)
        return file.read(int(sizes[row]))


def throw_out(folder: Path, limit: int, *, kept: str) -> None:
    """Deletes the groups that were used longest ago, until the rest is within the limit. kept: is not deleted."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            # another process may be quicker
            with contextlib.suppress(FileNotFoundError):
                status = entry.stat()
                found.append((status.st_mtime_ns, status.st_size, entry))
    total = sum(size for _, size, _ in found)
    for _, size, entry in sorted(found, key=lambda row: row[0]):
        if total <= limit:
            return
        # one that is being written has another suffix
        if entry.name.endswith(SUFFIX) and entry.name != kept:
            Path(entry.path).unlink(missing_ok=True)
            total -= size


def check_room(groups: Sequence[Group], window: int, limit: int, where: str) -> None:
    """Raises DataError where the cache cannot hold the window that is read and the next."""
    largest = max((group.length for group in groups), default=0)
    # a window ends with the group that fills it
    needed = 2 * (window + largest) + FETCHES * largest
    if needed > limit:
        raise DataError(
            f"{where} has row groups of up to {in_bytes(largest)}, of which two windows of "
            f"{in_bytes(window)} need {in_bytes(needed)} on disk; raise --data.stream-cache-gib to "
            f"{needed / 2**30:.1f} or more"
        )
