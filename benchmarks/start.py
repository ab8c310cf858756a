"""From the start of a process to its first result, beside scripts with timm and OpenCLIP, processes in turn.

python benchmarks/start.py [ROUNDS]  ->  benchmarks/results/start.json and its table in docs/speed.md (--table: that
alone)

The scripts are those of benchmarks/start_scripts.py. Seconds from the interpreter's start to its end, by the clock and
of the processor, which the table has; medians over rounds, and ratios of the two processes of one round.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

from pages import put
from sources import processor_s

SCRIPTS = Path(__file__).with_name("start_scripts.py")
OUT = Path(__file__).with_name("results") / "start.json"
PAGE = Path(__file__).parents[1] / "docs" / "speed.md"
START, END = "<!-- benchmarks/start.py -->", "<!-- end of benchmarks/start.py -->"
ROUNDS = 5
LONG, FEW = "300 photographs embedded, ViT-S/16", 3  # the case that takes minutes, and its rounds
# what is timed -> (ours, the other's, as it is called there)
CASES = {
    "imports": ("import_ours", "import_timm", "timm"),
    "imports beside OpenCLIP's": ("import_ours", "import_open_clip", "OpenCLIP"),
    "file to first embedding, ViT-B/16": ("first_ours", "first_timm", "timm"),
    "the same, ViT-B/16 of a CLIP file": ("first_ours_clip", "first_open_clip", "OpenCLIP"),
    "first step of training, ViT-S/16, batch 8": ("step_ours", "step_timm", "timm"),
    LONG: ("embed_ours", "embed_timm", "timm"),
}
# ours with an empty cache of compiled programs, and with a full one
WAYS = ("empty", "full")


def seconds(script: str, files: Path, cache: str) -> dict[str, float]:
    """Of one process from its start to its end. cache: the folder of compiled programs."""
    kept = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    # each library takes the cores that it finds
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    begun, before = time.perf_counter(), processor_s()
    subprocess.run(
        [sys.executable, str(SCRIPTS), script, str(files)],
        env=environment | kept | {"HF_HUB_OFFLINE": "1"},
        check=True,
        capture_output=True,
    )
    return {"wall_s": time.perf_counter() - begun, "processor_s": processor_s() - before}


def measured(files: Path, rounds: int) -> Iterator[dict[str, Any]]:
    """After every case of every round what there is of each: the other's process, then ours with an empty and with a
    full cache."""
    found: dict[str, Any] = {name: [] for name in CASES}
    for number, (name, case) in product(range(rounds), CASES.items()):
        if name == LONG and number >= FEW:
            continue
        with tempfile.TemporaryDirectory() as cache:
            turns = {"theirs": seconds(case[1], files, cache)}
            turns |= {way: seconds(case[0], files, cache) for way in WAYS}
        found[name].append(turns)
        yield found


def table(found: dict[str, Any]) -> str:
    """The rows of docs/speed.md."""
    lines = [
        "| seconds of the processor | empty cache | full cache | the other's | speed over it, empty | full |",
        "|---|---|---|---|---|---|",
    ]
    for name, rounds in found.items():
        # of a run that was stopped
        if not rounds:
            continue
        times = [f"{statistics.median(_used(rounds, way)):.1f}" for way in (*WAYS, "theirs")]
        ratios = [f"{_ratio(rounds, way):.2f}" for way in WAYS]
        times[-1] += f" ({CASES[name][2]})"
        lines.append(f"| {name} | {' | '.join(times + ratios)} |")
    return "\n".join(lines)


def _used(rounds: list[Any], way: str) -> list[float]:
    return [turns[way]["processor_s"] for turns in rounds]


def _ratio(rounds: list[Any], way: str) -> float:
    """How many times as fast ours is, by what does not depend on who else uses the machine."""
    pairs = zip(_used(rounds, "theirs"), _used(rounds, way), strict=True)
    return statistics.median(theirs / ours for theirs, ours in pairs)


def main(rounds: int) -> None:
    packages = ("jax", "flax", "torch", "timm", "open_clip_torch")
    versions = {"python": platform.python_version()} | {name: version(name) for name in packages}
    machine = {"cores": len(os.sched_getaffinity(0)), "versions": versions}
    with tempfile.TemporaryDirectory() as folder:
        seconds("made", Path(folder), folder)
        # written each time: what there is of a run that is stopped is as good
        for found in measured(Path(folder), rounds):
            OUT.write_text(json.dumps(machine | {"cases": found}, indent=1) + "\n")


if __name__ == "__main__":
    if sys.argv[1:] != ["--table"]:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS)
    put(PAGE, START, END, table(json.loads(OUT.read_text())["cases"]))
