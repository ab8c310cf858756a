"""Batches filled example by example, ahead of whoever asks for them. Imports no jax.

All threads work on the first batch, then on the next: the first one is there as soon as its examples are. What waits is
bounded in bytes, as eight batches of large pictures may be more than a machine has.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

Batch = dict[str, Any]  # of numpy arrays
ROOM = 1 << 30  # bytes of examples that wait, or are being read
FEWEST = 2  # batches that may wait whatever they take: while one is handed out the next is filled
AHEAD = 2  # batches for each thread, so that one large picture does not hold up the others


def unchanged(error: BaseException) -> BaseException:
    """The error itself."""
    return error


class Filling:
    """A batch whose rows come one by one."""

    def __init__(self, like: Batch, size: int, changed: threading.Condition) -> None:
        self.arrays = {
            name: np.empty((size, *np.shape(value)), np.asarray(value).dtype)
            for name, value in like.items()
        }
        self._done = np.zeros(size, bool)
        self._left = size
        self._errors: dict[int, BaseException] = {}
        self._changed = changed

    def done(self, place: int, error: BaseException | None = None) -> None:
        """A row is in its place, or never will be."""
        with self._changed:
            self._done[place] = True
            self._left -= 1
            if error is not None:
                self._errors[place] = error
            if self._left == 0 or self._errors:
                self._changed.notify_all()

    @property
    def whole(self) -> bool:
        return self._left == 0

    @property
    def error(self) -> BaseException | None:
        """That of the first row that has one, whatever the threads: it is known once the rows before it are done."""
        first = min(self._errors, default=0)
        return self._errors.get(first) if self._done[:first].all() else None


class Row:
    """The place of one example in its batch."""

    def __init__(self, batch: Filling, place: int) -> None:
        self._batch, self._place = batch, place

    def put(self, fields: Mapping[str, Any] | np.void) -> None:
        """Copies the fields of the example in, which may then be given back."""
        for name, array in self._batch.arrays.items():
            array[self._place] = fields[name]
        self._batch.done(self._place)

    def fail(self, error: BaseException) -> None:
        """Has whoever asks for the batch meet the error."""
        self._batch.done(self._place, error)


Start = Callable[[int, Row], None]  # place in the data: puts its example into the row, now or soon
Told = Callable[[BaseException], BaseException]  # of what went wrong what a person is told


class Rows:
    """The rows that threads take in turn. They know nothing of the iterator, so that it ends with its last user."""

    def __init__(
        self, start: Start, like: Batch, size: int, *, first: int, last: int, ahead: int
    ) -> None:
        """first, last: batches. ahead: rows that may wait."""
        self._start, self._like, self._size = start, like, size
        self._changed = threading.Condition()
        self._batches: deque[Filling] = deque()
        self._next, self._last = first * size, last * size
        self._allowed = self._next + ahead
        self._closed = False

    def work(self) -> None:
        """Of a thread: one row after the other, until there are no more."""
        while (taken := self._taken()) is not None:
            place, row = taken
            try:
                self._start(place, row)
            except BaseException as error:
                row.fail(error)

    def _taken(self) -> tuple[int, Row] | None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._next < self._allowed)
            if self._closed or self._next >= self._last:
                return None
            place = self._next
            self._next += 1
            row = place % self._size
            if row == 0:
                self._batches.append(Filling(self._like, self._size, self._changed))
            return place, Row(self._batches[-1], row)

    def batch(self) -> Batch:
        """The next one. Raises what became of an example of it."""
        with self._changed:
            self._changed.wait_for(self._decided)
            found = self._batches[0]
            if found.error:
                raise found.error
            self._batches.popleft()
            self._allowed += self._size
            self._changed.notify_all()
        return found.arrays

    def _decided(self) -> bool:
        # one error is enough: the rows behind it have no reader any more
        first = self._batches[0] if self._batches else None
        return first is not None and (first.whole or first.error is not None)

    def whole(self) -> int:
        with self._changed:
            return sum(batch.whole for batch in self._batches)

    def close(self) -> None:
        """Lets the threads end. None is waited for: what it reads has no reader any more."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class Batches(Iterator[Batch]):
    """Batches in order, whose get_state and set_state are the position in the data: how many were handed out.

    start: is called by threads with each place in the data, in order. like: an example, whose fields have the shapes
    and kinds of all. count: how many batches there are.
    """

    def __init__(
        self,
        start: Start,
        like: Batch,
        size: int,
        *,
        count: int,
        threads: int,
        told: Told = unchanged,
    ) -> None:
        self._start, self._like, self._size = start, like, size
        self._count, self._threads, self._told = count, threads, told
        self._next = 0
        self._rows: Rows | None = None

    def __next__(self) -> Batch:
        if self._next >= self._count:
            self.close()
            raise StopIteration
        if self._rows is None:
            self._rows = self._begun()
        try:
            batch = self._rows.batch()
        except Exception as error:
            # whoever has read the example knows what a person is told of it
            told = self._told(error)
            if told is error:
                raise
            raise told from error
        self._next += 1
        return batch

    def waiting(self) -> int:
        """How many whole batches wait to be asked for."""
        return self._rows.whole() if self._rows else 0

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._next}

    def set_state(self, state: Mapping[str, int]) -> None:
        # what was read ahead is of another position
        self.close()
        self._next = int(state["next_index"])

    def _begun(self) -> Rows:
        rows = Rows(
            self._start,
            self._like,
            self._size,
            first=self._next,
            last=self._count,
            ahead=rows_ahead(self._like, self._size, self._threads),
        )
        # at the latest when Python ends, as an endless iterator has no end of its own
        weakref.finalize(self, rows.close)
        for _ in range(self._threads):
            threading.Thread(target=rows.work, daemon=True).start()
        return rows

    def close(self) -> None:
        """Ends the reading ahead."""
        if self._rows is not None:
            self._rows.close()
        self._rows = None


def rows_ahead(like: Batch, size: int, threads: int) -> int:
    """How many rows may wait: some batches for each thread, fewer where they would take more than ROOM."""
    taken = sum(np.asarray(value).nbytes for value in like.values())
    return max(min(AHEAD * threads * size, ROOM // taken), FEWEST * size)
