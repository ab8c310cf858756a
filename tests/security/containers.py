"""Damaged and hostile containers: name -> (content, part of the sentence that refuses it)."""

from __future__ import annotations

import json
import pickle
import struct
import zipfile

from tests.security import build as b
from tests.security.build import legacy, npy, npz, pairs, program, safetensors, tensor, text, zip_of
from tests.security.pickled import COMMAND, DAMAGED, DEEP, Files, System, beside

W = pairs({"w": tensor()})
GOOD = b.good_zip()


def zips() -> Files:
    size, start = len(GOOD), GOOD.index(b.CENTRAL)
    end = GOOD.index(b.END)
    bomb = b.torch_zip(program(W), values=bytes(80 << 20), method=zipfile.ZIP_DEFLATED)
    files = {
        f"zip-cut-at-{n}": (GOOD[:n], "zip|checkpoint")
        for n in (3, 4, 30, 100, start, start + 20, end, size - 1)
    }
    files |= {
        "zip-duplicate": (_twice(), "two zip entries of one name"),
        "zip-duplicate-normalised": (
            b.torch_zip(program(W), ("x/./data/0", bytes(24))),
            "two zip entries of one name",
        ),
        "zip-parent": (b.torch_zip(program(W), ("../../canary", b"x")), "leaves the archive"),
        "zip-absolute": (b.torch_zip(program(W), ("/canary", b"x")), "leaves the archive"),
        "zip-backslash": (
            b.torch_zip(program(W), ("x/y", b"x")).replace(b"x/y", b"x\\y"),
            "leaves the archive",
        ),
        "zip-two-pickles": (b.torch_zip(program(W), ("y/data.pkl", program(W))), "has 2 pickles"),
        "zip-overlap": (_overlap(), "overlap"),
        "zip-shared-header": (b.field(GOOD, 1, 42, "<I", 0), "another entry where"),
        "zip-offset-beyond": (b.field(GOOD, 1, 42, "<I", size), "beyond its own end"),
        "zip-size-beyond": (
            b.field(b.field(GOOD, 2, 20, "<I", 999), 2, 24, "<I", 999),
            "beyond its own end",
        ),
        "zip-sizes-differ": (b.field(GOOD, 1, 24, "<I", 9999), "stored in 24 bytes but 9,999 long"),
        "zip-encrypted": (b.field(GOOD, 1, 8, "<H", 1), "is encrypted"),
        "zip-method": (b.field(GOOD, 1, 10, "<H", 12), "packed by method 12"),
        "zip-name-no-utf8": (
            b.field(GOOD, 0, 8, "<H", 1 << 11).replace(b"x/data.pkl", b"x/d\xff\xfea.pkl"),
            "no text",
        ),
        "zip64-missing": (b.field(GOOD, 1, 42, "<I", 0xFFFFFFFF), "zip64 sizes are missing"),
        "zip64-contradiction": (_zip64(b"\0" * 16 + struct.pack("<4Q", 1, 1, 1, 1)), "contradict"),
        "zip64-nowhere": (
            GOOD[:end] + struct.pack("<4sIQI", b"PK\6\7", 0, 1 << 60, 1) + GOOD[end:],
            "not where it says",
        ),
        "zip-directory-elsewhere": (
            b.replaced(GOOD, end + 16, struct.pack("<I", 0)),
            "not where it says",
        ),
        "zip-directory-size": (
            b.replaced(GOOD, end + 12, struct.pack("<I", 1 << 30)),
            "not where it says",
        ),
        "zip-count": (b.replaced(GOOD, end + 8, struct.pack("<2H", 9, 9)), "zip entries where 9"),
        "zip-count-less": (
            b.replaced(GOOD, end + 8, struct.pack("<2H", 2, 2)),
            "damaged zip directory",
        ),
        "zip-prefixed": (GOOD[:4] + bytes(500) + GOOD, "not where it says"),
        "zip-second-end": (b.replaced(GOOD, end + 20, b"\x16\0") + GOOD[end:], "not where it says"),
        "zip-tail": (GOOD + b"tail", "does not end where the file does"),
        "zip-crc-pickle": (
            b.flipped(GOOD, text("w")[5:] + b"c"),
            "is damaged: the bytes of 'x/data.pkl'",
        ),
        "zip-crc-storage": (
            b.flipped(GOOD, b.VALUES.tobytes()[4:]),
            "is damaged: the bytes of 'x/data/0'",
        ),
        "zip-bomb": (bomb, "would inflate from"),
        "zip-bomb-understated": (
            b.deflated_with_size(bytes(9 << 20), 24),
            "does not inflate to the size",
        ),
        "zip-bomb-overstated": (
            b.deflated_with_size(bytes(24), 60 << 20),
            "does not inflate to the size",
        ),
        "zip-bomb-terabytes": (b.deflated_with_size(bytes(24), 0xFFFFFFF0), "would inflate from"),
        "zip-deflate-noise": (_noise(), "does not inflate"),
        "zip-big-endian": (b.torch_zip(program(W), ("x/byteorder", b"big")), "big-endian"),
        "zip-many-entries": (zip_of([(f"{i}", b"") for i in range(60_001)]), "are read at most"),
        "zip-folder-as-pickle": (zip_of([("x/data.pkl/", b"")]), "neither torch's data.pkl nor"),
        "zip-something-else": (
            zip_of([("word/document.xml", b"<x/>")]),
            "neither torch's data.pkl nor",
        ),
        "zip-script-of-nothing": (
            b.torch_zip(program(b")"), ("x/constants.pkl", program(b")"))),
            "holds a tuple",
        ),
    }
    return files


def _twice() -> bytes:
    data = b.torch_zip(program(W), ("x/data/1", bytes(24)))
    return data.replace(b"x/data/1", b"x/data/0")


def _overlap() -> bytes:
    """The first entry reaches into the second."""
    longer = struct.unpack_from("<I", GOOD, b.central(GOOD, 0) + 20)[0] + 10
    return b.field(b.field(GOOD, 0, 20, "<I", longer), 0, 24, "<I", longer)


def _zip64(record: bytes) -> bytes:
    end = GOOD.index(b.END)
    record64 = b"PK\6\6" + struct.pack("<Q", 44) + record[:12] + record[16:]
    return (
        GOOD[:end]
        + record64.ljust(56, b"\0")
        + struct.pack("<4sIQI", b"PK\6\7", 0, end, 1)
        + GOOD[end:]
    )


def _noise() -> bytes:
    data = b.torch_zip(program(W), method=zipfile.ZIP_DEFLATED)
    place = data.index(b"x/data/0") + 8
    return b.replaced(data, place, b"\xff" * 8)


def legacies() -> Files:
    good = legacy(b.legacy_tensor())
    return {
        "legacy-cut": (good[:-1], "is cut short"),
        "legacy-cut-in-pickle": (good[:120], DAMAGED),
        "legacy-count-differs": (legacy(b.legacy_tensor(), count=7), "states two sizes"),
        "legacy-huge-count": (legacy(b.legacy_tensor(count=1 << 40)), "is cut short"),
        "legacy-no-key": (legacy(b.legacy_tensor(), keys=()), "does not list the storages"),
        "legacy-key-twice": (
            legacy(b.legacy_tensor(), keys=("0", "0")),
            "does not list the storages",
        ),
        "legacy-unknown-key": (
            legacy(b.legacy_tensor(), keys=("1",)),
            "does not list the storages",
        ),
        "legacy-protocol": (legacy(b.legacy_tensor(), protocol=7), "not one of torch's"),
        "legacy-big-endian": (legacy(b.legacy_tensor(), little=False), "big-endian"),
        "legacy-two-ways": (
            legacy(
                pairs({"a": b.legacy_tensor(), "b": b.legacy_tensor(kind="HalfStorage", count=12)})
            ),
            "in two ways",
        ),
    }


def arrays() -> Files:
    evil = f"__import__('os').system('{COMMAND}')"
    objects = npy("'|O'", "(1,)", pickle.dumps(System(), 4))
    return {
        "npz-objects": (npz(objects), "holds no plain numbers"),
        "npz-code-in-descr": (npz(npy(evil)), "holds no plain numbers"),
        "npz-code-in-shape": (npz(npy(shape=f"({evil},)")), "holds no plain numbers"),
        "npz-deep-header": (npz(npy(shape="(" * 1500)), "holds no plain numbers"),
        "npz-structured": (npz(npy("[('a', '<f4')]")), "holds no plain numbers"),
        "npz-unknown-type": (npz(npy("'<f3'")), "unknown type"),
        "npz-void": (npz(npy("'|V1'")), "holds no plain numbers"),
        "npz-shape-overflow": (npz(npy(shape="(4294967296, 4294967296)")), "impossible shape"),
        "npz-empty-but-huge": (
            npz(npy(shape="(0, 99999999999999999999)", values=b"")),
            "impossible shape",
        ),
        "npz-million-digits": (npz(npy(shape=f"({'9' * 3000},)")), "impossible shape"),
        "npz-negative": (npz(npy(shape="(-2, -3)")), "holds no plain numbers"),
        "npz-giant": (npz(npy(shape="(1000000, 1000000)")), "its header calls for"),
        "npz-short": (npz(npy(values=bytes(20))), "its header calls for"),
        "npz-no-magic": (npz(b"NUMPY" + bytes(60)), "no array that numpy wrote"),
        "npz-version": (npz(b"\x93NUMPY\x09\0" + bytes(60)), "no array that numpy wrote"),
        "npz-header-beyond": (
            npz(b"\x93NUMPY\1\0\xff\xff" + bytes(60)),
            "no array that numpy wrote",
        ),
        "npz-header-4-gigabytes": (
            npz(b"\x93NUMPY\2\0\xff\xff\xff\xff" + bytes(60)),
            "no array that numpy wrote",
        ),
        "npz-empty-entry": (npz(b""), "no array that numpy wrote"),
        "npz-parent": (npz(npy(), "../w.npy"), "leaves the archive"),
        "npz-crc": (b.flipped(npz(npy()), b.VALUES.tobytes()[4:]), "is damaged"),
        "npz-bomb": (
            zip_of([("w.npy", npy(shape="(20971520,)", values=bytes(80 << 20)))], 8),
            "would inflate from",
        ),
    }


def safe() -> Files:
    whole = "not a whole safetensors file"
    deep = b'{"a":' * 50_000 + b"1" + b"}" * 50_000
    twice = json.dumps({"w": b.entry(), "v": b.entry()}).replace('"v"', '"w"').encode()
    return {
        "safe-length-max": (
            safetensors({"w": b.entry()}, length=2**64 - 1),
            "is no checkpoint that is known",
        ),
        "safe-length-half": (safetensors({"w": b.entry()}, length=1 << 39), whole),
        "safe-length-short": (safetensors({"w": b.entry()}, length=5), whole),
        "safe-header-9-megabytes": (safetensors(b'{"a":' + b" " * (9 << 20)), "has a header of"),
        "safe-many-tensors": (
            safetensors({f"{i}": b.entry(shape=(0,), offsets=(0, 0)) for i in range(105_000)}, b""),
            "tensors, more",
        ),
        "safe-overlap": (safetensors({"w": b.entry(), "v": b.entry()}), whole),
        "safe-beyond": (safetensors({"w": b.entry(shape=(4, 3), offsets=(0, 48))}), whole),
        "safe-backwards": (safetensors({"w": b.entry(offsets=(24, 0))}), whole),
        "safe-negative": (safetensors({"w": b.entry(offsets=(-24, 0))}), whole),
        "safe-shape-overflow": (safetensors({"w": b.entry(shape=(2**63, 2**63))}), whole),
        "safe-empty-but-huge": (
            safetensors({"w": b.entry(shape=(0, 2**62), offsets=(0, 0))}, b""),
            "impossible shape",
        ),
        "safe-unknown-dtype": (safetensors({"w": b.entry("F99")}), whole),
        "safe-float4": (safetensors({"w": b.entry("F4", (6, 8))}), "cannot be read"),
        "safe-deep-json": (safetensors(deep), whole),
        "safe-surrogates": (
            safetensors(b'{"\\ud800": ' + json.dumps(b.entry()).encode() + b"}"),
            whole,
        ),
        "safe-nul-name": (safetensors({"a\0b": b.entry()}), "is no name"),
        "safe-name-twice": (safetensors(twice), "two entries called 'w'"),
        "safe-cut": (safetensors({"w": b.entry()})[:-1], whole),
        "safe-tail": (safetensors({"w": b.entry()}) + b"x", whole),
    }


def odd() -> Files:
    return {
        "odd-empty": (b"", "is empty"),
        "odd-page": (b"<!DOCTYPE html><html>", "is a web page"),
        "odd-lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        "odd-zeros": (bytes(1000), "is no checkpoint"),
        "odd-tar": (bytes(257) + b"ustar" + bytes(300), "is a tar file"),
        "odd-hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    }


def controls() -> dict[str, bytes]:
    """Files made in the same way that load: what refuses the others is what is wrong with them."""
    return {
        "control-zip": GOOD,
        "control-deflated": b.torch_zip(program(W), method=zipfile.ZIP_DEFLATED),
        # never hashed, which would overrun the C stack
        "control-deep-key": beside(b"})" + b"\x85" * DEEP + b"Ns"),
        "control-legacy": legacy(b.legacy_tensor()),
        "control-npz": npz(npy()),
        "control-npz-fortran": npz(npy(order="True")),
        "control-safetensors": safetensors({"w": b.entry()}),
    }
