"""Seconds of a step, and the device's state while it works. Imports neither jax nor torch."""

from __future__ import annotations

import math
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

STEPS = 20  # at least, between two looks at the clock
ROUND_S = 0.3  # a round of short steps has more of them
ROUNDS = (3, 9)  # at least and at most; between them as many as there is time for
TIME_S = 3.0
SHORT_S = 0.5  # of one kernel
ASKED = (
    "name,driver_version,clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,"
    "clocks_throttle_reasons.active,memory.total"
)


@dataclass(frozen=True)
class Timing:
    """Seconds of a step: of each round the time over its steps, of the rounds the median, the least and the most."""

    median: float
    least: float
    most: float
    rounds: int
    steps: int  # of a round
    device: dict[str, str]  # its clocks and power in the middle of the last round


def timed(run: Callable[[int], Any], *, seconds: float = TIME_S, tiny: bool = False) -> Timing:
    """run: does so many steps, and comes back when the last has ended. seconds: of all rounds together, about."""
    if tiny:
        return _rounds(run, steps=2, most=2)
    # compiles, tunes and fills caches; then one short round says how many steps a long one has
    run(3)
    start = time.perf_counter()
    run(5)
    each = (time.perf_counter() - start) / 5
    steps = max(STEPS, math.ceil(ROUND_S / each))
    wanted = int(seconds / (each * steps))
    return _rounds(run, steps=steps, most=min(max(wanted, ROUNDS[0]), ROUNDS[1]))


def _rounds(run: Callable[[int], Any], *, steps: int, most: int) -> Timing:
    found = []
    look: Any = None
    for number in range(most):
        # beside the last round, whose steps are handed to the device long before it has done them
        if number == most - 1:
            look = _asked()
        start = time.perf_counter()
        run(steps)
        found.append((time.perf_counter() - start) / steps)
    device = _answered(look)
    return Timing(statistics.median(found), min(found), max(found), most, steps, device)


def device_now() -> dict[str, str]:
    """What nvidia-smi says of the first device; {} where there is none."""
    return _answered(_asked())


def _asked() -> subprocess.Popen[str] | None:
    command = ["nvidia-smi", f"--query-gpu={ASKED}", "--format=csv,noheader", "-i", "0"]
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen(command, stdout=pipe, stderr=subprocess.DEVNULL, text=True)
    except OSError:
        return None


def _answered(asked: subprocess.Popen[str] | None) -> dict[str, str]:
    if asked is None:
        return {}
    line = asked.communicate(timeout=20)[0].strip()
    return dict(zip(ASKED.split(","), line.split(", "), strict=False)) if line else {}
