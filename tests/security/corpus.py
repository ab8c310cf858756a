"""All hostile files: name -> (content, part of the sentence that refuses it), and those that are no plain files."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from tests.security.containers import arrays, controls, legacies, odd, safe, zips
from tests.security.pickled import CANARY, DEEP, Files, bombs, calls, opcodes, tensors

__all__ = ["CANARY", "INDEXES", "controls", "hostile", "places"]


@cache
def hostile() -> Files:
    groups = (calls, opcodes, bombs, tensors, zips, legacies, arrays, safe, odd)
    return {key: row for group in groups for key, row in group().items()}


def places(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is no plain file, made in the folder: name -> (path, part of the refusal)."""
    os.mkfifo(folder / "pipe.pt")
    (folder / "loop.pt").symlink_to("loop.pt")
    (folder / "gone.pt").symlink_to("nowhere.pt")
    (folder / "zero.pt").symlink_to("/dev/zero")
    for key, owners in INDEXES.items():
        (folder / key).mkdir()
        (folder / key / "pytorch_model.bin.index.json").write_bytes(owners)
    (folder / "nothing").mkdir()
    return {
        "place-fifo": (folder / "pipe.pt", "is a pipe"),
        "place-loop": (folder / "loop.pt", "cannot be opened"),
        "place-gone": (folder / "gone.pt", "no checkpoint at"),
        "place-device": (folder / "zero.pt", "is a pipe, socket or device"),
        "place-nul": (Path(f"{folder}/a\0b"), "cannot be opened"),
        "place-long": (folder / ("a" * 5000), "cannot be opened"),
        "place-empty-folder": (folder / "nothing", "has no .safetensors"),
        "index-parent": (folder / "index-parent", "outside its own folder"),
        "index-nul": (folder / "index-nul", "outside its own folder"),
        "index-deep": (folder / "index-deep", "is not an index"),
        "index-numbers": (folder / "index-numbers", "is not an index"),
        "index-itself": (folder / "index-itself", "is JSON text"),
        "index-missing": (folder / "index-missing", r"no checkpoint at .*nothing\.bin"),
    }


INDEXES = {
    "index-parent": b'{"weight_map": {"w": "../canary"}}',
    "index-nul": b'{"weight_map": {"w": "a\\u0000b"}}',
    "index-deep": b'{"a":' * DEEP,
    "index-numbers": b'{"weight_map": {"w": 3}}',
    "index-itself": b'{"weight_map": {"w": "pytorch_model.bin.index.json"}}',
    "index-missing": b'{"weight_map": {"w": "nothing.bin"}}',
}
