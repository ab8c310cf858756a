"""Several real processes that work as one, over the loopback."""

from __future__ import annotations

import contextlib
import os
import random
import re
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOISE = ("[Gloo]", "Expected number of connected")  # what XLA prints of its own on CPUs


@dataclass(frozen=True)
class Ended:
    """One process that has ended, and how long that took since it was asked for."""

    code: int
    out: str
    err: str
    seconds: float

    @property
    def last(self) -> str:
        """The last line of its errors."""
        return self.err.strip().rpartition("\n")[2]


class Processes:
    """`fmjax ARGS` in some processes of some devices each. each: further arguments of the process of that index."""

    def __init__(
        self,
        folder: Path,
        args: Sequence[str],
        *,
        count: int = 2,
        devices: int = 2,
        each: dict[int, Sequence[str]] | None = None,
    ) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        address = f"127.0.0.1:{free_port()}"
        told = ["--hosts.coordinator", address, "--hosts.count", str(count), "--hosts.index"]
        self.all = [
            self._started(index, [*args, *(each or {}).get(index, ()), *told, str(index)], devices)
            for index in range(count)
        ]

    def _started(self, index: int, args: Sequence[str], devices: int) -> subprocess.Popen:
        # into files: what a process has started itself may outlive it, and a pipe would wait for that
        with self._file(index, "out").open("w") as out, self._file(index, "err").open("w") as err:
            return subprocess.Popen(
                [sys.executable, "-m", "fmjax.cli", *args],
                stdout=out,
                stderr=err,
                env=environment(devices),
                cwd=self.folder,
            )

    def _file(self, index: int, kind: str) -> Path:
        return self.folder / f"{index}.{kind}"

    def until(self, text: str, *, timeout_s: float = 120.0) -> None:
        """Waits until the first process prints a text."""
        last = time.monotonic() + timeout_s
        while text not in self._file(0, "out").read_text():
            assert time.monotonic() < last, self._file(0, "out").read_text()
            assert self.all[0].poll() is None, self._file(0, "err").read_text()
            time.sleep(0.05)

    def signal(self, index: int, number: int) -> None:
        """Sends a signal to one of them."""
        self.all[index].send_signal(number)

    def ended(self, *, timeout_s: float = 200.0) -> list[Ended]:
        """All of them, once they have ended; none outlives it."""
        start = time.monotonic()
        try:
            return [self._ended(index, start, timeout_s) for index in range(len(self.all))]
        finally:
            for process in self.all:
                process.kill()

    def _ended(self, index: int, start: float, timeout_s: float) -> Ended:
        code = self.all[index].wait(max(start + timeout_s - time.monotonic(), 0.1))
        seconds = time.monotonic() - start
        if code < 0 or code == 1:
            time.sleep(1.5)  # JAX has ended it from within: its last line comes from outside
        out, err = (self._file(index, kind).read_text() for kind in ("out", "err"))
        return Ended(code, "\n".join(spoken(out)), err, seconds)


def spoken(out: str) -> list[str]:
    """The lines that fmjax has printed. Devices print theirs at once, so that the number at the end of one may be on a
    line of its own."""
    lines = [line for line in out.splitlines() if not any(noise in line for noise in NOISE)]
    return [line for line in lines if not re.fullmatch(r"\d+", line)]


def environment(devices: int) -> dict[str, str]:
    """Of a process with some CPU devices, and with the sources of this checkout."""
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
    }


def free_port() -> int:
    """A port of the loopback that nobody listens at."""
    # below those that the system hands out: it is bound by a process that takes seconds to start, beside other tests
    for port in random.SystemRandom().sample(range(10_000, 32_768), 100):
        with socket.socket() as server, contextlib.suppress(OSError):
            server.bind(("127.0.0.1", port))
            return port
    raise AssertionError("no port of the loopback is free")
