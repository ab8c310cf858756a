"""Seconds of a step, and the device's state while it works. Imports neither jax nor torch."""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

STEPS = 20  # of a round, at least: between two looks at the clock
WARM, TRIED = 3, 5  # steps before any round: to warm up, and to see how long one is
ROUND_S = 0.3  # a round of short steps has more of them
ROUNDS = (3, 9)  # at least and at most; between them as many as there is time for
TIME_S = 3.0
SHORT_S = 0.5  # of one kernel
ANSWER_S = 20.0
ASKED = (
    "name,driver_version,clocks.sm,clocks.mem,power.draw,power.limit,temperature.gpu,"
    "clocks_throttle_reasons.active,memory.total"
)
Asked = subprocess.Popen[str] | None


@dataclass(frozen=True)
class Timing:
    """Seconds of a step: of each round the time over its steps, of the rounds the median, the least and the most."""

    median: float
    least: float
    most: float
    rounds: int
    steps: int  # of a round
    # its clocks and power in the middle of the last round, where it has any to tell
    device: dict[str, str] = field(default_factory=dict)


def timed(
    run: Callable[[int], Any], *, seconds: float = TIME_S, least: int = STEPS, looks: bool = True
) -> Timing:
    """run: does so many steps, and comes back when the last has ended.

    seconds: of all rounds together, about. least: steps of a round; one is enough where nothing is handed to a device
    ahead of its work, and is timed once where it takes longer than that. looks: at the device, in the last round.
    """
    # compiles, tunes and fills caches; then one short round says how many steps a long one has
    run(min(WARM, least))
    each = _each(run, min(TRIED, least))
    if least == 1 and each >= seconds:
        return of_rounds([each])
    long = min(ROUND_S, seconds / ROUNDS[0])
    steps = max(least, math.ceil(long / each))
    wanted = int(seconds / (each * steps))
    return _rounds(run, steps, min(max(wanted, ROUNDS[0]), ROUNDS[1]), looks=looks)


def _rounds(run: Callable[[int], Any], steps: int, most: int, *, looks: bool) -> Timing:
    found = []
    look: Asked = None
    for number in range(most):
        # beside the last round, whose steps are handed to the device long before it has done them
        if looks and number == most - 1:
            look = _asked()
        found.append(_each(run, steps))
    return of_rounds(found, steps, _answered(look))


def _each(run: Callable[[int], Any], steps: int) -> float:
    """Seconds of a step."""
    start = time.perf_counter()
    run(steps)
    # a clock's tick at least: who divides by it is given no zero
    return max(time.perf_counter() - start, 1e-9) / steps


def several(call: Callable[[], Any], *, seconds: float) -> Timing:
    """The same of what takes seconds each time: once, and up to three times where there is time for it."""
    found = []
    while not found or (sum(found) < seconds and len(found) < ROUNDS[0]):
        found.append(_each(lambda _: call(), 1))
    return of_rounds(found)


def of_rounds(found: list[float], steps: int = 1, device: dict[str, str] | None = None) -> Timing:
    """What rounds come to. found: the seconds of a step in each."""
    middle = statistics.median(found)
    return Timing(middle, min(found), max(found), len(found), steps, device or {})


def device_now() -> dict[str, str]:
    """What nvidia-smi says of the first device; {} where there is none."""
    return _answered(_asked())


def _asked() -> Asked:
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    command = [program, f"--query-gpu={ASKED}", "--format=csv,noheader", "-i", "0"]
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    try:
        return subprocess.Popen(command, stdout=pipe, stderr=nowhere, text=True)  # noqa: S603
    except OSError:
        return None


def _answered(asked: Asked) -> dict[str, str]:
    if asked is None:
        return {}
    # a driver that hangs costs the figure, and not the row
    try:
        line = asked.communicate(timeout=ANSWER_S)[0].strip()
    except subprocess.TimeoutExpired:
        asked.kill()
        return {}
    return dict(zip(ASKED.split(","), line.split(", "), strict=False)) if line else {}
