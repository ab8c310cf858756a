"""Files byte by byte: pickles from opcodes, zips with any field wrong, safetensors with any header."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import numpy as np

STOP, MARK, TUPLE, REDUCE, BINPERSID, EMPTY_TUPLE, NONE = b".", b"(", b"t", b"R", b"Q", b")", b"N"
VALUES = np.arange(6, dtype=np.float32)
END = b"PK\5\6"
CENTRAL = b"PK\1\2"


def text(value: str | bytes) -> bytes:
    data = value if isinstance(value, bytes) else value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int | bool | float | bytes) -> bytes:
    """An int of any sign and size; bytes are opcodes already."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def stack_name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def tuple_of(*items: bytes) -> bytes:
    return MARK + b"".join(items) + TUPLE


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + tuple_of(*arguments) + REDUCE


def pairs(items: dict[str | bytes, bytes]) -> bytes:
    return b"}" + MARK + b"".join(text(key) + value for key, value in items.items()) + b"u"


def program(body: bytes) -> bytes:
    return b"\x80\x02" + body + STOP


def storage(
    key: str = "0", kind: str = "FloatStorage", count: object = 6, module: str = "torch"
) -> bytes:
    fields = (text("storage"), name(module, kind), text(key), text("cpu"), number(count))  # type: ignore[arg-type]
    return tuple_of(*fields) + BINPERSID


def tensor(shape=(2, 3), strides=(3, 1), offset=0, where: bytes | None = None) -> bytes:
    sizes = [tuple_of(*map(number, row)) for row in (shape, strides)]
    hooks = call(name("collections", "OrderedDict"))
    function = name("torch._utils", "_rebuild_tensor_v2")
    return call(function, where or storage(), number(offset), *sizes, number(False), hooks)


def zip_of(entries: list[tuple[str, bytes]], method: int = zipfile.ZIP_STORED) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", method) as archive:
        for entry, content in entries:
            archive.writestr(zipfile.ZipInfo(entry), content, method)
    return data.getvalue()


def torch_zip(
    pickled: bytes, *more: tuple[str, bytes], values: bytes = VALUES.tobytes(), method: int = 0
) -> bytes:
    """A torch archive; `more` comes behind the usual entries."""
    return zip_of(
        [("x/data.pkl", pickled), ("x/data/0", values), ("x/version", b"3\n"), *more], method
    )


def good_zip() -> bytes:
    return torch_zip(program(pairs({"w": tensor()})))


def legacy(
    body: bytes,
    keys: tuple[str, ...] = ("0",),
    count: int = 6,
    little: bool = True,
    protocol: int = 1001,
) -> bytes:
    head = [program(number(0x1950A86A20F9469CFC6C)), program(number(protocol))]
    system = program(pairs({"little_endian": number(little)}))
    listed = program(b"]" + MARK + b"".join(map(text, keys)) + b"e")
    return b"".join(
        [*head, system, program(body), listed, struct.pack("<q", count), VALUES.tobytes()]
    )


def legacy_tensor(**fields: object) -> bytes:
    """A legacy persistent id has one field more."""
    place = storage(**fields)[: -len(TUPLE + BINPERSID)] + NONE + TUPLE + BINPERSID  # type: ignore[arg-type]
    return pairs({"w": tensor(where=place)})


def npy(
    descr: str = "'<f4'",
    shape: str = "(2, 3)",
    values: bytes = VALUES.tobytes(),
    order: str = "False",
) -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    header += " " * (-(len(header) + 11) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode() + values


def npz(array: bytes, entry: str = "w.npy") -> bytes:
    return zip_of([(entry, array)])


def safetensors(
    header: object, values: bytes = VALUES.tobytes(), length: int | None = None
) -> bytes:
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(data) if length is None else length) + data + values


def entry(
    dtype: str = "F32", shape: object = (2, 3), offsets: object = (0, 24)
) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def replaced(data: bytes, place: int, new: bytes) -> bytes:
    if place < 0:
        raise ValueError("nothing to replace there")
    return data[:place] + new + data[place + len(new) :]


def central(data: bytes, which: int) -> int:
    """Where the directory's record of an entry starts."""
    place = -1
    for _ in range(which + 1):
        place = data.index(CENTRAL, place + 1)
    return place


def field(data: bytes, which: int, at: int, form: str, value: int) -> bytes:
    """The zip with one field of an entry's directory record set."""
    return replaced(data, central(data, which) + at, struct.pack(form, value))


def flipped(data: bytes, needle: bytes) -> bytes:
    place = data.index(needle)
    return replaced(data, place, bytes([data[place] ^ 1]))


def deflated_with_size(content: bytes, size: int) -> bytes:
    """A torch zip whose storage inflates to `content` and states another size."""
    data = torch_zip(program(pairs({"w": tensor()})), values=content, method=zipfile.ZIP_DEFLATED)
    data = field(data, 1, 24, "<I", size)
    return field(data, 1, 16, "<I", zlib.crc32(content[:size]))
