"""Measures row after row, the most important first, and stops in time.

python -m benchmarks.gpu --out FILE.json [--seconds 330] [--commit HASH] [--rows PART ...]
                         [--after FILE ... --again PART ...] [--keep FOLDER] [--tiny]

Rows that former calls to the same kind of device have measured (--after) come last, but for those named by --again.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks.gpu import record
from benchmarks.gpu.cases import CASES, NAMED, Case
from fmjax.bench.timing import device_now
from fmjax.programs.machine import version

PACKAGES = (
    "jax",
    "jaxlib",
    "jax-cuda13-plugin",
    "flax",
    "optax",
    "numpy",
    "torch",
    "triton",
    "timm",
    "nvidia-cudnn-cu13",
)
# what jax may take of the device's memory: its own default, three quarters, is too little beside torch, which takes all
MEMORY = {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.92", "TF_CPP_MIN_LOG_LEVEL": "2"}
UNSAID = ("row", "side", "kind", "model", "batch", "options", "timing", "kernels")
UNDONE = {"left_out", "failed"}
CONFIGURES = ("XLA_", "JAX_", "TORCH", "CUDA_", "PYTORCH_", "NVIDIA_TF32")


def main() -> None:
    asked = arguments()
    until = time.time() + asked.seconds
    head = header(asked)
    cases = [case for case in CASES if chosen(case, asked.rows)]
    known = measured(asked.after, head["device"]) - set(again(asked.again))
    cases.sort(key=lambda case: case.name in known)
    record.begun(asked.out, head)
    with kept(asked.keep) as folder:
        for side, rows in itertools.groupby(cases, key=lambda case: case.side):
            names = [case.name for case in rows]
            measure(side, names, asked, Path(folder), until)
    for row in record.rows(asked.out):
        print(said(row))


def measure(
    side: str, names: list[str], asked: argparse.Namespace, folder: Path, until: float
) -> None:
    """Rows that follow each other, in one process; in another from the next on where one ends it."""
    while names:
        command = [sys.executable, "-m", "benchmarks.gpu.worker", side, str(asked.out)]
        command += [str(folder), str(until), str(int(asked.tiny)), *names]
        try:
            # what is left is enough for a row that was begun in time, unless it is stuck
            code = subprocess.run(
                command, env=MEMORY | os.environ, timeout=max(until - time.time(), 1)
            ).returncode
            ended = f"its process ended with status {code}"
        except subprocess.TimeoutExpired:
            ended = "the time was up"
        written = {row["row"] for row in record.rows(asked.out)}
        names = [name for name in names if name not in written]
        if names:
            record.add(asked.out, NAMED[names.pop(0)].told | {"failed": ended})


def kept(folder: Path | None) -> Any:
    """The folder of what rows leave beside the results; one that goes when all is done, where None."""
    if folder is None:
        return tempfile.TemporaryDirectory()
    folder.mkdir(parents=True, exist_ok=True)
    return contextlib.nullcontext(str(folder))


def chosen(case: Case, parts: list[str]) -> bool:
    """Whether a row is asked for."""
    return not parts or any(part in case.name for part in parts)


def again(parts: list[str]) -> list[str]:
    """Rows by which two calls are compared."""
    return [case.name for case in CASES if any(part in case.name for part in parts)]


def measured(files: list[Path], device: dict[str, str]) -> set[str]:
    """Rows that former calls to a device of the same name have measured."""
    found = [json.loads(file.read_text()) for file in files]
    alike = [call for call in found if call["device"].get("name") == device.get("name")]
    return {row["row"] for call in alike for row in call["rows"] if not UNDONE & set(row)}


def header(asked: argparse.Namespace) -> dict[str, Any]:
    """What was measured where, by what."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": asked.commit,
        "tiny": asked.tiny,
        "device": device_now(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in PACKAGES},
        "environment": environment(),
    }


def environment() -> dict[str, str]:
    """The variables that configure what is timed, but for where caches lie, which is a matter of the machine."""
    chosen = {name: value for name, value in os.environ.items() if name.startswith(CONFIGURES)}
    return {name: value for name, value in chosen.items() if not name.endswith("_CACHE_DIR")}


def said(row: dict[str, Any]) -> str:
    """A row in a line."""
    shown = {name: value for name, value in row.items() if name not in UNSAID}
    return f"{row['row']}: {shown}"


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the results")
    parser.add_argument("--seconds", type=float, default=330, help="in which all is to end")
    parser.add_argument("--commit", default="", help="of what is measured")
    parser.add_argument("--rows", nargs="*", default=[], help="parts of names; all without any")
    parser.add_argument("--after", type=Path, nargs="*", default=[], help="results of former calls")
    parser.add_argument("--again", nargs="*", default=[], help="rows of these to measure anew")
    parser.add_argument("--keep", type=Path, help="a folder for compiled programs and traces")
    parser.add_argument("--tiny", action="store_true", help="small ones, as a test has them")
    return parser.parse_args()


if __name__ == "__main__":
    main()
