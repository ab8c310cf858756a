"""A process that is asked to stop takes away what it has half written."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class Terminated(BaseException):
    """SIGTERM, as Ctrl-C is a KeyboardInterrupt: what is half written is taken away on the way out."""


@contextmanager
def terminable() -> Iterator[None]:
    """SIGTERM raises Terminated inside the block; only the main thread may ask for that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: Any) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
