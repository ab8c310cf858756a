"""All hostile files: name -> (content, part of the sentence that refuses it), and those that are no plain files."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

from tests.security import build as b
from tests.security import containers, copies, crowds, fits, pickled
from tests.security.pickled import CANARY, DEEP, Files

__all__ = ["CANARY", "INDEXES", "controls", "facts", "fitting", "hostile", "places"]
GROUPS = (
    *(pickled.calls, pickled.opcodes, pickled.bombs, pickled.tensors),
    *(copies.repeats, copies.counts, copies.two_ways),
    *(containers.zips, containers.legacies, containers.arrays, containers.safe, containers.odd),
    *(crowds.crowds, crowds.headers),
)


@cache
def hostile() -> Files:
    return {key: row for group in GROUPS for key, row in group().items()}


@cache
def fitting() -> Files:
    """Those that are held against a model."""
    return fits.fitting()


@cache
def facts() -> Files:
    """Those that are asked what they were told."""
    return fits.facts()


@cache
def controls() -> dict[str, bytes]:
    plain = (containers, copies, crowds)
    made = {key: data for group in plain for key, data in group.controls().items()}
    return {**made, **{k: data for k, (data, _) in fits.controls().items()}}


def places(folder: Path) -> dict[str, tuple[Path, str]]:
    """What is no plain file, made in the folder: name -> (path, part of the refusal)."""
    os.mkfifo(folder / "pipe.pt")
    (folder / "loop.pt").symlink_to("loop.pt")
    (folder / "gone.pt").symlink_to("nowhere.pt")
    (folder / "zero.pt").symlink_to("/dev/zero")
    for key, (owners, _, shards) in INDEXES.items():
        (folder / key).mkdir()
        (folder / key / "pytorch_model.bin.index.json").write_bytes(owners)
        for name, content in shards.items():
            (folder / key / name).write_bytes(content)
    (folder / "nothing").mkdir()
    return {
        "place-fifo": (folder / "pipe.pt", "is a pipe"),
        "place-loop": (folder / "loop.pt", "cannot be opened"),
        "place-gone": (folder / "gone.pt", "no checkpoint at"),
        "place-device": (folder / "zero.pt", "is a pipe, socket or device"),
        "place-nul": (Path(f"{folder}/a\0b"), "cannot be opened"),
        "place-long": (folder / ("a" * 5000), "cannot be opened"),
        "place-empty-folder": (folder / "nothing", "has no .safetensors"),
        **{key: (folder / key, reason) for key, (_, reason, _) in INDEXES.items()},
    }


def _index(owners: dict[str, str]) -> bytes:
    return json.dumps({"weight_map": owners}).encode()


W = b.good_zip()
HOLLOW = b'{"weight_map": [' + b"{}," * (1 << 20) + b"{}]}"
# name -> (index, part of the refusal, shards beside it)
INDEXES: dict[str, tuple[bytes, str, dict[str, bytes]]] = {
    "index-parent": (_index({"w": "../canary"}), "outside its own folder", {}),
    "index-nul": (_index({"w": "a\0b"}), "outside its own folder", {}),
    "index-escapes": (_index({"w": "\x1b]0;owned\a"}), "outside its own folder", {}),
    "index-right-to-left": (_index({"w": "a\u202enib."}), "outside its own folder", {}),
    "index-dots": (_index({"w": ".."}), "outside its own folder|opened", {}),
    "index-deep": (b'{"a":' * DEEP, "is not an index", {}),
    "index-numbers": (_index({"w": 3}), "is not an index", {}),  # type: ignore[dict-item]
    "index-no-map": (b"[]", "is not an index", {}),
    "index-braces": (HOLLOW, "is not an index", {}),
    "index-braces-16-megabytes": (b'{"a": [' + b"{}," * (5 << 20) + b"{}]}", "is not an index", {}),
    "index-digits": (b'{"a": ' + b"9" * (3 << 20) + b"}", "is not an index", {}),
    "index-no-utf8": (b'{"weight_map": {"\xff": "a.bin"}}', "is not an index", {}),
    "index-itself": (_index({"w": "pytorch_model.bin.index.json"}), "is JSON text", {}),
    "index-missing": (_index({"w": "nothing.bin"}), r"no checkpoint at .*nothing\.bin", {}),
    "index-key-twice": (
        b'{"weight_map": {"w": "a.bin", "w": "b.bin"}}',
        "two entries called 'w'",
        {"a.bin": W},
    ),
    "index-map-twice": (
        b'{"weight_map": {}, "weight_map": {"w": "a.bin"}}',
        "two entries called",
        {"a.bin": W},
    ),
    "index-two-shards": (
        _index({"w": "a.bin", "v": "b.bin"}),
        "both hold 'w'",
        {"a.bin": W, "b.bin": W},
    ),
    "index-other-shard": (
        _index({"w": "b.bin", "v": "a.bin"}),
        "both hold|do not hold",
        {"a.bin": W, "b.bin": W},
    ),
    "index-many-shards": (
        _index({f"w{i}": f"{i}.bin" for i in range(9000)}),
        "256 are read at most",
        {},
    ),
    "index-long-names": (_index({"w" * (3 << 20): "a.bin"}), "do not hold", {"a.bin": W}),
}
