"""Worker processes that read, decode and augment: Python lets the threads of one process do little else at a time.

What is read, in which order and with which random numbers is decided where it always is, so that a run is the same for
any number of workers. What they make of an example comes back through memory that all share. No jax here; in the
workers neither, unless a task's own view needs it.
"""

from __future__ import annotations

import copy
import multiprocessing
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import wait
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.shared_memory import SharedMemory
from typing import Any

import numpy as np

from fmjax.config.presets import OWN
from fmjax.data.filling import Row
from fmjax.errors import DataError

Read = Callable[..., dict[str, Any]]  # (index, rng) -> the fields of a row
AHEAD = 4  # rows for each worker that are under way, so that none waits for the next


@dataclass(frozen=True)
class Ticket:
    """A row that is still to be read."""

    index: int
    rng: np.random.Generator | None

    @classmethod
    def of(cls, index: int, rng: np.random.Generator | None = None) -> Ticket:
        # a copy, as Grain uses the generator itself again
        return cls(int(index), copy.deepcopy(rng))


class Worker(SpawnProcess):
    """A process of a pool, which the pool ends when another one has died."""

    ended = False

    def terminate(self) -> None:
        # SIGTERM is ignored in a worker, and one that has died while it waited has taken the lock of the queue with it
        self.ended = not wait([self.sentinel], 0)
        self.kill()


class Spawning(SpawnContext):
    """Starts processes anew, as a fork would take over the locks of threads that are not there; and remembers them, as
    the pool forgets those that have died, and with them why."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Worker] = []

    # the pool calls the context's class by this name
    def Process(self, *args: Any, **options: Any) -> Any:  # pyright: ignore
        process = Worker(*args, **options)
        self.started.append(process)
        return process


class Workers:
    """Some processes that turn tickets into rows of batches.

    read: of an index and a generator makes a row, whose fields have the shapes and kinds of `like`. It is pickled, with
    all that it holds.
    """

    def __init__(self, read: Read, like: dict[str, Any], count: int) -> None:
        import cloudpickle

        # one record a row, which a worker fills and nobody pickles
        arrays = {name: np.asarray(value) for name, value in like.items()}
        self.row = np.dtype([(name, x.dtype, x.shape) for name, x in arrays.items()])
        slots = AHEAD * count
        self._memory = SharedMemory(create=True, size=slots * self.row.itemsize)
        self._rows = np.ndarray(slots, self.row, self._memory.buf)
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        for slot in range(slots):
            self._free.put(slot)

        _carry_presets()
        # functions that no module has travel too: a source's fields are such
        told = (cloudpickle.dumps(read), self._memory.name, self.row, slots)
        self._context = Spawning()
        self._pool = ProcessPoolExecutor(
            count, mp_context=self._context, initializer=_begin, initargs=told
        )

    def read(self, ticket: Ticket, row: Row) -> None:
        """Sends one off, as soon as a slot is free; what comes of it is put into the row."""
        slot = self._free.get()
        try:
            found = self._pool.submit(_read, ticket, slot)
        except BaseException as error:
            self._free.put(slot)  # another thread may wait for one
            row.fail(error)
            return
        found.add_done_callback(partial(self._put, slot=slot, row=row))

    def _put(self, read: Future[None], *, slot: int, row: Row) -> None:
        """Whatever came of it, the slot is free: else whoever waits for one would wait for ever."""
        error = CancelledError() if read.cancelled() else read.exception()
        try:
            if error is None:
                row.put(self._rows[slot])
            else:
                row.fail(error)
        finally:
            self._free.put(slot)

    def told(self, error: BaseException) -> BaseException:
        """What a person is told of it: DataError where a worker has died."""
        return DataError(self._died()) if isinstance(error, BrokenProcessPool) else error

    def _died(self) -> str:
        # of those that have ended the one that the pool has not ended itself
        gone = wait([each.sentinel for each in self._context.started], timeout=1)
        found = [each for each in self._context.started if each.sentinel in gone and not each.ended]
        codes = {each.pid: _code(each) for each in found}
        known = [f"process {pid} {_ended(code)}" for pid, code in codes.items() if code]
        told = known[0] if known else "unknown why"
        return (
            f"a worker that reads images died ({told}), which is mostly for want of memory; run the "
            f"same command again to go on, with fewer --data.workers"
        )

    def close(self) -> None:
        """Ends the processes, and gives the memory back."""
        self._pool.shutdown(wait=True, cancel_futures=True)
        del self._rows
        self._memory.close()
        self._memory.unlink()


def _code(process: Worker) -> int:
    """How a process ended that has; 0 where nobody knows."""
    # the pool's own thread may be asking the system at the same time, which tells one of the two only
    for _ in range(200):
        if process.exitcode is not None:
            return process.exitcode
        time.sleep(0.01)
    return 0


def _ended(code: int) -> str:
    return f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"


def _carry_presets() -> None:
    """A preset of one's own is a file that no worker could import: what it defines travels itself."""
    import cloudpickle

    for name in [name for name in sys.modules if name.startswith(f"{OWN}.")]:
        cloudpickle.register_pickle_by_value(sys.modules[name])


# What a worker is given when it begins: how to read, and where to write. It has nothing else to do.
_given: dict[str, Any] = {}


def _begin(read: bytes, memory: str, row: np.dtype, slots: int) -> None:
    """Of a worker: before its first row."""
    import cloudpickle

    # Ctrl-C and Slurm's signal go to all processes; the run decides what becomes of its workers
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # a view that imports jax after all must not take a GPU
    os.environ["JAX_PLATFORMS"] = "cpu"
    shared = SharedMemory(memory)
    _given.update(memory=shared, rows=np.ndarray(slots, row, shared.buf))
    _given["read"] = cloudpickle.loads(read)


def _end_with_parent() -> None:
    """A run that was killed cannot end its workers."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _read(ticket: Ticket, slot: int) -> None:
    found = _given["read"](ticket.index, ticket.rng)
    row = _given["rows"][slot : slot + 1]
    for name, value in found.items():
        row[name][0] = value
