"""Reads every picture and lists every folder of a corpus under an audit hook, in a process of its own.

`python -m tests.security.images_worker jobs.json report.json`; jobs are {name: [kind, path]}. All are done twice: what
is imported and compiled on first use is not held against them, so the first round is of the controls only.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fmjax.data import audit
from fmjax.data.images import Picture, read
from fmjax.data.resizing import resize
from fmjax.data.sources.folder import image_folder
from fmjax.errors import DataError
from fmjax.specs import PreprocessConfig
from tests.security.worker import Audit, forget_peak, memory

NEUTRAL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5), "image_size": (224, 224)}
WAYS = [
    PreprocessConfig(**NEUTRAL),
    PreprocessConfig(**NEUTRAL, resize_mode="squash", interpolation="bilinear"),
    PreprocessConfig(**NEUTRAL, interpolation="bilinear_no_antialias"),
]


class Indoors(Audit):
    """Also sees what is opened outside the corpus."""

    def __init__(self, folder: str) -> None:
        super().__init__()
        self.folder = os.path.abspath(folder)

    def __call__(self, event: str, arguments: tuple) -> None:
        super().__call__(event, arguments)
        if (
            self.watching
            and event in ("open", "os.listdir", "os.scandir")
            and self._outside(arguments[0])
        ):
            self.seen.append(f"{event} outside: {arguments[0]!r}")

    def _outside(self, path: object) -> bool:
        return isinstance(path, str) and not os.path.abspath(path).startswith(self.folder)


def picture(path: str) -> list[str]:
    return _read(Path(path))


def content(path: str) -> list[str]:
    return _read(Path(path).read_bytes())


def _read(found: Picture) -> list[str]:
    image = read(found)
    return [str(resize(image, way).shape) for way in WAYS]


def folder(path: str) -> list[str]:
    splits = image_folder(Path(path))
    train, val = splits.train, splits.val
    return [
        f"{len(train)} train, {len(val or ())} val, {len(train.classes)} classes",
        *audit.lines(splits, train, val),
    ]


def as_nobody(path: str) -> list[str]:
    """A user to whom permissions mean something, where the tests are run by root."""
    if os.geteuid():
        return folder(path)
    os.seteuid(65_534)
    try:
        return folder(path)
    finally:
        os.seteuid(0)


KINDS: dict[str, Callable[[str], list[str]]] = {
    "picture": picture,
    "content": content,
    "folder": folder,
    "as_nobody": as_nobody,
}


def attempt(kind: str, path: str, watch: Audit) -> dict[str, Any]:
    """What came back or was refused, seconds, MB that it took at most, forbidden events, warnings of numpy."""
    told, error, caught_kind = [], "", ""
    forget_peak()
    before, wall, cpu = memory("VmRSS"), time.perf_counter(), time.process_time()
    watch.seen.clear()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        watch.watching = True
        try:
            told = KINDS[kind](path)
        except DataError as caught:
            error, caught_kind = str(caught), "DataError"
        except BaseException as caught:
            error, caught_kind = repr(caught), type(caught).__name__
        watch.watching = False
    return {
        "told": told,
        "error": error,
        "kind": caught_kind,
        "seconds": time.process_time() - cpu,
        "wall": time.perf_counter() - wall,
        "megabytes": memory("VmHWM") - before,
        "events": list(watch.seen),
        "warnings": [str(row.message) for row in warned if "PIL" not in row.filename],
    }


def main(jobs: str, report: str) -> None:
    watch = Indoors(str(Path(jobs).parent))
    sys.addaudithook(watch)
    rows = json.loads(Path(jobs).read_text())
    for key, (kind, path) in rows.items():
        if key.startswith("control-"):
            attempt(kind, path, watch)
    Path(report).write_text(json.dumps({key: attempt(*row, watch) for key, row in rows.items()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
