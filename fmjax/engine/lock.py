"""One process, or one group of them, trains in a run's folder at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from fmjax.errors import UsageError
from fmjax.serial import write_atomically

LOCK, HOLDER = ".lock", ".holder.json"


@contextmanager
def held(run: Path) -> Iterator[None]:
    """Holds a run's folder, which is made. Raises UsageError where another process does."""
    run.mkdir(parents=True, exist_ok=True)
    # the operating system's, which ends with the process: one that is killed leaves no lock behind
    lock = FileLock(run / LOCK)
    # the error of the library is not chained: it says nothing that the sentence does not
    try:
        lock.acquire(timeout=0)
    except Timeout:
        lock = None
    if lock is None:
        raise UsageError(
            f"{run} is in use{_holder(run)}; wait until that run has ended, or pass another --out"
        )
    # for the sentence of whoever comes next
    write_atomically(
        run / HOLDER,
        json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "since": time.time()}),
    )
    try:
        yield
    finally:
        with suppress(FileNotFoundError):
            (run / HOLDER).unlink()
        lock.release()


def _holder(run: Path) -> str:
    """Who holds it, in words; the record may be missing, or half a second old."""
    try:
        record = json.loads((run / HOLDER).read_text())
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(record["since"]))
        return f" by process {record['pid']} on {record['host']}, since {since}"
    except (OSError, ValueError, KeyError, TypeError):
        return " by another process"
