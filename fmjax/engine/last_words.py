"""A second process that says why the first one ended, where that could not.

JAX ends a process from within, by `abort` or `_exit`, as soon as process 0 is gone: no Python runs any more. This file
is then still there to say it, as the last line. It is run as a script and imports nothing of fmjax.
"""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

DONE = b"done"
PROBE_S = 3.0  # for process 0 to answer: a host that is gone does not


@contextmanager
def kept(sentence: str, address: str) -> Iterator[Callable[[], Any]]:
    """While it lasts, the end of this process without a word of its own is explained by the sentence, where nobody
    listens at the address any more. Gives what is to be called before an end of which all is said."""
    child = subprocess.Popen(  # noqa: S603 - this very file
        [sys.executable, "-I", __file__, sentence, address],
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is for those who compute
    )
    try:
        yield lambda: child.communicate(DONE)
    finally:
        child.communicate(DONE)


def main(sentence: str, address: str) -> None:
    """Waits for the end of the process that has started this one."""
    # who asks all processes of a job to stop means those who compute
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if sys.stdin.buffer.read() == DONE or _answers(address):
        return
    sys.stderr.write(f"fmjax: {sentence}\n")


def _answers(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), PROBE_S).close()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
