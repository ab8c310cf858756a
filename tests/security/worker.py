"""Opens and reads every file of a corpus under an audit hook: `python -m tests.security.worker jobs.json report.json`.

A process of its own, as an audit hook cannot be taken off again. The first jobs are the controls: what they import and
compile on first use is not held against the files.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fmjax.names import get_spec
from fmjax.weights.publisher import facts_in, with_facts
from weights_conversion import CheckpointError, get_dialect, to_jax
from weights_conversion.readers import open_checkpoint

FORBIDDEN = (
    *(
        "exec",
        "compile",
        "import",
        "marshal",
        "pickle",
        "code.",
        "ctypes",
        "socket",
        "subprocess",
        "urllib",
        "ftplib",
    ),
    *(
        "os.system",
        "os.exec",
        "os.spawn",
        "os.posix_spawn",
        "os.fork",
        "os.startfile",
        "os.kill",
        "os.putenv",
        "pty",
    ),
    *(
        "os.remove",
        "os.rename",
        "os.rmdir",
        "os.mkdir",
        "os.truncate",
        "os.link",
        "os.symlink",
        "os.chmod",
        "os.chown",
    ),
    *("shutil", "tempfile", "webbrowser", "sys.setprofile", "sys.settrace", "gc.get_objects"),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def writes(arguments: tuple) -> bool:
    """Whether an "open" event is one for writing."""
    return bool(set(str(arguments[1] or "")) & set("wax+") or arguments[2] & WRITES)


class Audit:
    """The forbidden events since `seen` was last cleared."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.watching = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.watching:
            return
        if event == "open" and writes(arguments):
            self.seen.append(f"open for writing {arguments[0]!r}")
        elif event.startswith(FORBIDDEN):
            self.seen.append(f"{event} {str(arguments)[:100]}")


def memory(field: str) -> float:
    """MB: VmRSS now, VmHWM at its peak since `forget_peak`. 0 where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(field))


def forget_peak() -> None:
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def stages(job: dict) -> Iterator[str]:
    """What is done with a file, each stage named before it begins: opened, held against a model, or asked for what it
    was told of one, and every value read."""
    yield "open"
    checkpoint = open_checkpoint(job["path"])
    tensors = checkpoint.tensors
    if "told" in job:
        yield "facts"
        with_facts(get_spec(job["told"]), facts_in(checkpoint.metadata))
    if "dialect" in job:
        yield "fit"
        tensors = to_jax(
            tensors, get_dialect(job["dialect"]), job["shapes"], np.dtype(np.float32)
        ).params
    yield "read"
    for tensor in tensors.values():
        tensor.read(()).sum()
    yield "loaded"


def attempt(job: dict, audit: Audit) -> dict[str, object]:
    """What happened: the stage that refused, its sentence, seconds, MB that it took at most, forbidden events."""
    stage, error, kind = "", "", ""
    forget_peak()
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    audit.seen.clear()
    audit.watching = True
    try:
        for stage in stages(job):  # noqa: B007 - the last one that began is told
            pass
    except CheckpointError as caught:
        error, kind = str(caught), "CheckpointError"
    except Exception as caught:
        error, kind = repr(caught), type(caught).__name__
    audit.watching = False
    seconds = time.process_time() - cpu
    return {
        "stage": stage,
        "error": error,
        "kind": kind,
        "seconds": seconds,
        "wall": time.perf_counter() - wall,
        "megabytes": memory("VmHWM") - before,
        "events": list(audit.seen),
    }


def main(jobs: str, report: str) -> None:
    audit = Audit()
    sys.addaudithook(audit)
    rows = json.loads(Path(jobs).read_text())
    for key, job in rows.items():
        if key.startswith("control-"):
            attempt(job, audit)
    Path(report).write_text(json.dumps({key: attempt(job, audit) for key, job in rows.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
