"""What tools that a run's numbers were sent to have kept of them, read from their own files."""

from __future__ import annotations

import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Points = dict[
    str, list[tuple[int, float]]
]  # name of a number -> (step, value), in the order of writing
BLOCK, HEADER = 32_768, 7  # of LevelDB's logs, which a .wandb file is, behind 7 bytes of its own


def tensorboard(run: Path) -> Points:
    """Scalars of all event files of a run, as TensorBoard shows them: the start of a session takes back what files
    before it have of its step and later ones (event_accumulator.py, _MaybePurgeOrphanedData)."""
    from tensorboardX.proto.event_pb2 import Event, SessionLog

    found: Points = {}
    for path in sorted((run / "tensorboard").glob("events.*")):
        for content in _records(path.read_bytes()):
            event = Event.FromString(content)
            if event.session_log.status == SessionLog.START:
                found = {name: _before(points, event.step) for name, points in found.items()}
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def _before(points: list[tuple[int, float]], step: int) -> list[tuple[int, float]]:
    return [point for point in points if point[0] < step]


def _records(content: bytes) -> Iterator[bytes]:
    """Those of TensorFlow's record files: a length, its checksum, the bytes, theirs. One that is cut short ends it."""
    while len(content) > 12:
        (size,) = struct.unpack_from("<Q", content)
        yield content[12 : 12 + size]
        content = content[16 + size :]


def wandb(run: Path) -> tuple[Points, set[str]]:
    """The numbers of all offline runs in a run's folder, and their ids."""
    from wandb.proto.wandb_internal_pb2 import Record

    found: Points = {}
    ids = set()
    for path in sorted(run.glob("wandb/offline-run-*/*.wandb")):
        for content in _logged(path.read_bytes()):
            record = Record.FromString(content)
            ids |= {record.run.run_id} - {""}
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                point = (record.history.step.num, json.loads(item.value_json))
                found.setdefault(name, []).append(point)
    return {name: points for name, points in found.items() if not name.startswith("_")}, ids


def _logged(content: bytes) -> Iterator[bytes]:
    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        # the rest of a block that holds no header is left empty
        if BLOCK - place % BLOCK < HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, size, kind = struct.unpack_from("<IHB", content, place)
        parts += content[place + HEADER : place + HEADER + size]
        place += HEADER + size
        # 1 is a whole record, 4 the last part of one
        if kind in (1, 4):
            yield parts
            parts = b""


def mlflow(database: Path) -> tuple[Points, list[Any]]:
    """The numbers of the only run of an experiment, and that run."""
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{database}")
    experiment = client.get_experiment_by_name("fmjax")
    runs = client.search_runs([experiment.experiment_id])
    found = {}
    for name in runs[0].data.metrics:
        history = client.get_metric_history(runs[0].info.run_id, name)
        found[name] = [(point.step, point.value) for point in history]
    return found, list(runs)


def trackio(folder: Path) -> tuple[Points, set[str]]:
    """The numbers of a project, and the names of its runs."""
    found: Points = {}
    names = set()
    with sqlite3.connect(folder / "fmjax.db") as database:
        rows = database.execute("select run_name, step, metrics from metrics order by id")
        for name, step, metrics in rows.fetchall():
            names.add(name)
            for key, value in json.loads(metrics).items():
                found.setdefault(key, []).append((step, value))
    return found, names
