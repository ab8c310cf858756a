"""Datasets on a hub of the loopback."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import constants

from tests.support import sets
from tests.support.misbehaving_server import Server, serving

COMMIT, LATER = "a" * 40, "b" * 40
REPO = "datasets/me/pets"


def parquet(rows: list[tuple[str, bytes, str]], *, group: int = 3, **options: Any) -> bytes:
    """A file of rows as the hub writes it. group: rows in a row group."""
    file = io.BytesIO()
    pq.write_table(sets.arrow(rows), file, row_group_size=group, **options)
    return file.getvalue()


def publish(server: Server, commit: str = COMMIT, *, config: str = "default") -> None:
    """The small set, in two files for train and one for val."""
    train = sets.images("train")
    files = {
        "train/0000": train[:4],
        "train/0001": train[4:],
        "validation/0000": sets.images("val"),
    }
    for name, rows in files.items():
        server.publish(REPO, commit, f"{config}/{name}.parquet", parquet(rows))


def path(name: str, commit: str = COMMIT) -> str:
    """Where the server has a file of the set."""
    return f"/{REPO}/resolve/{commit}/default/{name}.parquet"


@contextmanager
def reached(monkeypatch: Any) -> Iterator[Server]:
    """A server that this process takes for the hub. The client reads its settings once, when it is imported."""
    with serving() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.base)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        template = server.base + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        yield server
