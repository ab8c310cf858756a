"""How long a new process takes to its first embedding. Asks no device: one that is taken here is not free there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fmjax.bench.rows import Row
from fmjax.bench.timing import ROUNDS, of_rounds
from fmjax.config.bench import BenchConfig
from fmjax.config.model import ModelConfig
from fmjax.errors import FmjaxError, safe
from fmjax.serial import to_json

PATIENCE_S = 600.0  # with a process that should take seconds
# all that is compiled is kept, however short it took
KEEPING = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
WAYS = ("empty", "full")  # the cache of compiled programs


def start(config: BenchConfig, model: ModelConfig) -> Iterator[Row]:
    """From the interpreter's start to the first embedding of one picture. model: with weights that can be had."""
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    began = time.perf_counter()
    # pairs, so that what else this machine does hits both alike; once, and up to three times where there is time for it
    while not found["full"] or _goes_on(len(found["full"]), began, config.seconds):
        with tempfile.TemporaryDirectory() as cache:
            for way in WAYS:
                found[way].append(first_embedding(model, Path(cache)))
    which = "random weights" if model.init == "random" else "weights from disk"
    for way, runs in found.items():
        yield Row(
            kind="start",
            what=f"first embedding, {way} cache",
            timing=of_rounds([run["total_s"] for run in runs]),
            facts={"cache": way, "weights": which, "runs": runs},
        )


def _goes_on(done: int, began: float, seconds: float) -> bool:
    return done < ROUNDS[0] and time.perf_counter() - began < seconds


def first_embedding(model: ModelConfig, cache: Path) -> dict[str, float]:
    """Seconds to the first embedding of a new process, and of its parts. cache: the folder of compiled programs.

    Raises FmjaxError with what the process said last, where it fails.
    """
    command = [sys.executable, "-m", "fmjax.bench.first", to_json(model)]
    environment = os.environ | KEEPING | {"JAX_COMPILATION_CACHE_DIR": str(cache)}
    began = time.perf_counter()
    try:
        done = subprocess.run(  # noqa: S603  the same Python, and a module of this package
            command,
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise FmjaxError(
            f"a new process had no embedding after {PATIENCE_S:.0f} s; see `fmjax doctor`"
        ) from None
    # its end is counted: it has nothing to do there
    total = time.perf_counter() - began
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        said = safe([f"code {done.returncode}", *lines][-1])[:300]
        raise FmjaxError(f"a new process failed before its first embedding: {said}")
    parts: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return {"total_s": total, **parts}
