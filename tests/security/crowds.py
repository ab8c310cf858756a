"""Containers of too many small things, and those that two readers read in two ways: name -> (content, refusal)."""

from __future__ import annotations

import json
import struct

from tests.security import build as b
from tests.security.build import npy, npz, pairs, program, safetensors, tensor, text, zip_of
from tests.security.pickled import Files

TOO_MANY = "are read at most|that are read from one file"
NOT_NUMPYS = "holds no plain numbers"


def crowds() -> Files:
    """As many tensors, arrays, storages, fields or braces as a small file can name."""
    empty = {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}
    nothing = npy(shape="(0,)", values=b"")
    braces = {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24], "x": "@"}
    fields = json.dumps({"w": braces}).encode()
    texts = json.dumps(
        {"__metadata__": {f"{i}": "" for i in range(300_000)}, "w": b.entry()}
    ).encode()
    wide = b.entry(shape=(1,) * 60_000 + (6,))
    return {
        "crowd-npz": (zip_of([(f"{i}.npy", nothing) for i in range(49_000)]), TOO_MANY),
        "crowd-safe": (safetensors({f"{i}": empty for i in range(49_990)}, b""), TOO_MANY),
        "crowd-legacy": (_storages(30_000), f"{TOO_MANY}|300,000 steps"),
        "crowd-safe-field": (
            safetensors(fields.replace(b'"@"', b"[" + b"{}," * 2_600_000 + b"{}]")),
            "braces",
        ),
        "crowd-safe-digits": (
            safetensors(fields.replace(b'"@"', b"9" * (7 << 20))),
            "not a whole|braces",
        ),
        "crowd-safe-text": (
            safetensors(fields.replace(b"@", b"a" * (7 << 20))),
            "what safetensors does not have",
        ),
        "crowd-safe-field-small": (safetensors(fields), "what safetensors does not have"),
        "crowd-safe-metadata": (safetensors(texts), "braces"),
        "crowd-safe-axes": (safetensors({"w": wide}), "impossible shape"),
        "crowd-safe-long-name": (safetensors({"a" * (7 << 20): b.entry()}), "is no name|too long"),
        "crowd-npz-long-name": (npz(npy(), "a" * 60_000 + ".npy"), "is no name|too long"),
        "crowd-zip-entries": (
            b.torch_zip(program(pairs({"w": tensor()})), *_entries(59_000)),
            TOO_MANY,
        ),
    }


def _entries(count: int) -> list[tuple[str, bytes]]:
    return [(f"x/data/{i}", b"") for i in range(1, count)]


def _storages(count: int) -> bytes:
    """A legacy file of that many storages of one value, each with a tensor."""
    head = (
        b"ctorch._utils\n_rebuild_tensor\nq\x00ctorch\nFloatStorage\nq\x01" + text("cpu") + b"q\x02"
    )
    head += text("storage") + b"q\x03)q\x04"
    rows = b"".join(
        text(f"{i}") + b"h\x00((h\x03h\x01" + text(f"{i}") + b"h\x02K\x01NtQK\x00h\x04h\x04tR"
        for i in range(count)
    )
    state = program(head + b"}(" + rows + b"u")
    pickles = [program(b.number(0x1950A86A20F9469CFC6C)), program(b.number(1001))]
    pickles += [program(pairs({"little_endian": b"\x88"})), state]
    pickles.append(program(b"](" + b"".join(text(f"{i}") for i in range(count)) + b"e"))
    return b"".join(pickles) + struct.pack("<qf", 1, 0.5) * count


def headers() -> Files:
    """npz headers in another form than numpy's own, which numpy evaluates and a search would read otherwise."""
    plain = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    wanted = {
        "type-twice": plain.replace("{", "{'descr': '<i4', "),
        "type-twice-last": plain.replace(", }", ", 'descr': '<i4', }"),
        "shape-twice": plain.replace(", }", ", 'shape': (3, 2), }"),
        "order-twice": plain.replace(", }", ", 'fortran_order': True, }"),
        "shape-in-text": plain.replace("{", "{'x': \"'shape': (3, 2)\", "),
        "order-in-text": plain.replace("{", "{'x': \"'fortran_order': True\", "),
        "type-in-text": plain.replace("{", "{\"'descr': '<i4'\": 0, "),
        "other-order": "{'shape': (2, 3), 'fortran_order': False, 'descr': '<f4', }",
        "another-key": plain.replace(", }", ", 'more': 1, }"),
        "without-brace": plain.replace("{", ""),
        "behind-brace": plain + " or {}",
        "comment": plain.replace("(2, 3), }", "(2, 3), #"),
        "shape-without-commas": plain.replace("(2, 3)", "(2 3)"),
        "shape-of-commas": plain.replace("(2, 3)", "(,,6)"),
        "shape-of-bools": plain.replace("(2, 3)", "(True, 6)"),
    }
    return {f"header-{key}": (npz(_array(value)), NOT_NUMPYS) for key, value in wanted.items()}


def _array(header: str) -> bytes:
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + b.VALUES.tobytes()


def in_turn(tensors: int) -> bytes:
    """Two deflated storages, and tensors that lie in one and the other by turns; it does load, and quickly."""
    count = 5 << 20
    places = [b.storage(f"{i}", count=count) + b"q" + bytes([8 + i]) for i in (0, 1)]
    rebuild = b.name("torch._utils", "_rebuild_tensor") + b"q\x07)q\x06"
    rows = b"".join(
        text(f"w{i}") + b"h\x07(h" + bytes([8 + i % 2]) + b"K\x00h\x06h\x06tR"
        for i in range(tensors)
    )
    body = program(b"](" + b"".join(places) + rebuild + b"e" + b"}(" + rows + b"u")
    more = ("x/data/1", bytes(4 * count))
    return b.torch_zip(body, more, values=bytes(4 * count), method=8)


def controls() -> dict[str, bytes]:
    """What is large and slow to read, but no more than published files are: these load."""
    files = {f"{i}": b.entry(shape=(6,), offsets=(24 * i, 24 * i + 24)) for i in range(9900)}
    return {
        "control-deflated-in-turn": in_turn(4000),
        "control-header": npz(_array(_PLAIN)),
        "control-crowd-npz": zip_of([(f"{i}.npy", npy()) for i in range(9900)]),
        "control-crowd-safe": safetensors(files, bytes(24 * 9900)),
        "control-crowd-legacy": _storages(9900),
    }


_PLAIN = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
