"""Fetches from hostile servers under an audit hook: `python -m tests.security.server_worker jobs.json report.json`.

A process of its own, as the hub's client reads its endpoint when it is imported, and as an audit hook cannot be taken
off again. The first jobs are the controls: what they import on first use is not held against the servers.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import sys
import time
from pathlib import Path

from fmjax.errors import CheckpointError
from fmjax.specs import Source
from fmjax.store import http, locate, network
from tests.security.worker import FORBIDDEN, forget_peak, memory, writes
from tests.support.locate import weights

MOST_BYTES = 1 << 20  # of a file; and, as the system's own limit, four times that
# event -> which of its arguments are paths that it changes
CHANGES = {
    **dict.fromkeys(
        ("os.mkdir", "os.remove", "os.rmdir", "os.truncate", "os.chmod", "os.chown"), (0,)
    ),
    **dict.fromkeys(("os.rename", "os.link"), (0, 1)),
    "os.symlink": (1,),
}
ELSEWHERE = tuple(event for event in FORBIDDEN if event not in (*CHANGES, "import", "socket"))


class Audit:
    """What was done outside the cache folders, beside connections to this machine, since `seen` was last cleared."""

    def __init__(self, allowed: Path) -> None:
        self.allowed = str(allowed)
        self.seen: list[str] = []
        self.watching = False

    def __call__(self, event: str, arguments: tuple) -> None:
        if not self.watching:
            return
        if event == "open" and writes(arguments):
            self.outside(event, arguments[0])
        elif event in CHANGES:
            for index in CHANGES[event]:
                self.outside(event, arguments[index])
        elif event == "import":
            if str(arguments[1] or "").startswith(self.allowed):
                self.seen.append(f"import {arguments[1]}")
        elif event == "socket.connect" and arguments[1][0] != "127.0.0.1":
            self.seen.append(f"connect {arguments[1]}")
        elif event.startswith(ELSEWHERE):
            self.seen.append(f"{event} {str(arguments)[:100]}")

    def outside(self, event: str, path: object) -> None:
        if isinstance(path, str | bytes | os.PathLike):
            text = os.path.abspath(os.fsdecode(path))
            if not text.startswith((self.allowed, "/dev/null")):
                self.seen.append(f"{event} {text}")


def attempt(job: dict, audit: Audit) -> dict[str, object]:
    """What came of one job: the error or the digest, the files that are left, and what it took."""
    os.environ.update(job.get("environment", {}))
    row = weights(Source(**job["source"]))
    if job.get("resume"):  # a first call that keeps a part
        with contextlib.suppress(CheckpointError):
            locate.obtain(row)
        damage(Path(job["environment"]["FMJAX_CACHE"]), job["resume"])
    found: dict[str, object] = {"error": "", "kind": "", "sha256": ""}
    forget_peak()
    before, wall, cpu = memory("VmRSS"), time.monotonic(), time.process_time()
    audit.seen.clear()
    audit.watching = True
    try:
        found["sha256"] = locate.obtain(row).sha256
    except CheckpointError as error:
        found |= {"error": str(error), "kind": "CheckpointError"}
    except Exception as error:
        found |= {"error": repr(error), "kind": type(error).__name__}
    audit.watching = False
    used = {"seconds": time.process_time() - cpu, "wall": time.monotonic() - wall}
    return found | used | {"megabytes": memory("VmHWM") - before, "events": list(audit.seen)}


def damage(cache: Path, kind: str) -> None:
    """Changes one bit of every part, where that is asked for."""
    for part in cache.rglob("*.part") if kind == "flip" else ():
        content = bytearray(part.read_bytes())
        content[len(content) // 2] ^= 1
        part.write_bytes(content)


def main(jobs: str, report: str) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (4 * MOST_BYTES, 4 * MOST_BYTES))
    network.BACKOFF_S, network.ANSWERING, http.PROGRESS = 0.01, 1.0, 1.0
    locate.TIMES, locate.EXTRA_BYTES = 0, MOST_BYTES
    rows = json.loads(Path(jobs).read_text())
    audit = Audit(Path(os.environ["HF_HOME"]).parent)
    sys.addaudithook(audit)
    for key in [key for key in rows if key.startswith("control-")]:
        attempt(rows[key], audit)
    Path(report).write_text(json.dumps({key: attempt(row, audit) for key, row in rows.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
