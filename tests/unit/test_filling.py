"""Batches filled example by example: all threads on the first one, what waits within bounds, errors in their place."""

from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from fmjax.data import filling
from fmjax.data.filling import Batches, Row, rows_ahead

LIKE = {"place": np.int64(0), "pixels": np.zeros(1 << 20, np.uint8)}  # a MiB each


class Reading:
    """Remembers which places were begun."""

    def __init__(self, broken: int = -1) -> None:
        self.begun: list[int] = []
        self.broken = broken

    def __call__(self, place: int, row: Row) -> None:
        self.begun.append(place)
        if place == self.broken:
            raise ValueError(f"{place} is broken")
        row.put({"place": place, "pixels": np.uint8(place % 256)})


def becomes(count, expected: int) -> bool:
    """Whether a number becomes the expected one, and stays it."""
    until = time.monotonic() + 20
    while count() != expected and time.monotonic() < until:
        time.sleep(0.01)
    time.sleep(0.1)
    return count() == expected


def places(batch) -> list[int]:
    assert (batch["pixels"][:, -1] == batch["place"] % 256).all()
    return batch["place"].tolist()


def test_batches_come_in_order_and_end():
    before = threading.active_count()
    batches = Batches(Reading(), LIKE, 3, count=5, threads=4)
    assert [places(batch) for batch in batches] == [[3 * n, 3 * n + 1, 3 * n + 2] for n in range(5)]
    assert becomes(threading.active_count, before)


def test_all_threads_read_the_first_batch():
    together = threading.Barrier(4)

    def start(place: int, row: Row) -> None:
        # none comes through before four examples of the one batch are under way
        if place < 4:
            together.wait(timeout=20)
        row.put({"place": place, "pixels": np.uint8(place)})

    batches = Batches(start, LIKE, 4, count=2, threads=4)
    assert places(next(batches)) == [0, 1, 2, 3]


@pytest.mark.parametrize(("room", "waiting"), [(6, 8), (10, 10), (100, 16)])
def test_what_waits_is_bounded_by_bytes(room, waiting, monkeypatch):
    """Rows of a MiB, batches of 4, two threads: two batches at least, four at most, else as many as there is room."""
    monkeypatch.setattr(filling, "ROOM", (room << 20) + 1000)
    assert rows_ahead(LIKE, 4, 2) == waiting
    reading = Reading()
    batches = Batches(reading, LIKE, 4, count=100, threads=2)
    for number in range(3):
        next(batches)
        handed_out = 4 * (number + 1)
        assert becomes(lambda: len(reading.begun), handed_out + waiting)
    assert batches.waiting() == waiting // 4


def test_large_batches_do_not_wait_by_the_dozen():
    picture = {"image": np.zeros((518, 518, 3), np.uint8)}
    assert rows_ahead(picture, 1024, 8) == 2 * 1024
    assert rows_ahead(picture, 32, 4) == 8 * 32


def test_an_error_is_met_with_its_batch_and_again():
    batches = Batches(Reading(broken=7), LIKE, 3, count=5, threads=2)
    assert [places(next(batches)) for _ in range(2)] == [[0, 1, 2], [3, 4, 5]]
    for _ in range(2):
        with pytest.raises(ValueError, match="7 is broken"):
            next(batches)


def test_of_several_errors_in_a_batch_the_first_rows_is_met():
    late = threading.Event()

    def start(place: int, row: Row) -> None:
        # the other thread meets its error before
        if place == 0:
            late.wait(timeout=20)
        else:
            threading.Timer(0.2, late.set).start()
        raise ValueError(f"{place} is broken")

    with pytest.raises(ValueError, match="0 is broken"):
        next(Batches(start, LIKE, 2, count=1, threads=2))


def test_a_position_is_the_number_of_batches():
    batches = Batches(Reading(), LIKE, 3, count=9, threads=2)
    next(batches)
    assert batches.get_state() == {"next_index": 1}
    # what was read ahead is left
    batches.set_state({"next_index": 6})
    assert [places(batch)[0] for batch in batches] == [18, 21, 24]


def test_threads_end_with_the_iterator_that_nobody_has():
    before = set(threading.enumerate())
    batches = Batches(Reading(), LIKE, 3, count=1000, threads=3)
    next(batches)
    reading = set(threading.enumerate()) - before
    assert len(reading) == 3
    del batches
    gc.collect()
    assert becomes(lambda: sum(thread.is_alive() for thread in reading), 0)
