"""Hostile pickles, in torch archives and legacy files: name -> (content, part of the sentence that refuses it)."""

from __future__ import annotations

import os
import pickle
import struct

from tests.security import build as b
from tests.security.build import call, legacy, name, number, pairs, program, tensor, text

CANARY = "canary"  # what any of them would create, were it run
COMMAND = f"touch {CANARY}"
Files = dict[str, tuple[bytes, str]]
MILLION = 1_000_000
DEEP = 100_000
NOT_NEEDED = "which weights do not need; nothing was run"
OPCODE = "which torch does not write"
DAMAGED = "damaged or that torch did not write"
SHAPE = "impossible"
TOO_DEEP = "nested over 64 deep"


class System:
    def __reduce__(self):
        return os.system, (COMMAND,)


class Eval:
    def __reduce__(self):
        return eval, (f"__import__('os').system('{COMMAND}')",)


def beside(value: bytes) -> bytes:
    """A torch file of a good state dict with one more entry."""
    return b.torch_zip(program(pairs({"w": tensor(), "more": value})))


def calls() -> Files:
    run = text(COMMAND)
    wanted = {
        "os-system": call(name("posix", "system"), run),
        "nt-system": call(name("nt", "system"), run),
        "subprocess": call(name("subprocess", "Popen"), text("touch")),
        "eval": call(name("builtins", "eval"), text("1")),
        "exec": call(name("builtins", "exec"), text("1")),
        "py2-eval": call(name("__builtin__", "eval"), text("1")),
        "import": call(name("builtins", "__import__"), text("os")),
        "getattr": call(name("builtins", "getattr"), name("torch", "Size"), text("__class__")),
        "torch-load": call(name("torch", "load"), text("x.pt")),
        "torch-hub": call(name("torch.hub", "load"), text("x")),
        "numpy-load": call(name("numpy", "load"), text("x.npy")),
        "pickle-loads": call(name("pickle", "loads"), b"C\x01."),
        "codecs-open": call(name("codecs", "open"), text(CANARY), text("w")),
        "runpy": call(name("runpy", "_run_code"), text("1")),
        "stack-global": call(b.stack_name("os", "system"), run),
        "dotted-name": call(b.stack_name("torch", "_utils._rebuild_tensor_v2.__globals__"), run),
        "dotted-class": call(b.stack_name("collections", "OrderedDict.__init__.__globals__"), run),
        "dotted-module": call(b.stack_name("torch._utils._rebuild_tensor_v2", "__call__"), run),
        "dunder": call(name("torch", "__dict__"), run),
        "script-class": name("__torch__.os", "system") + b.EMPTY_TUPLE + b"\x81",
        "partial": call(name("functools", "partial"), name("torch", "Size"), run),
        "whole-model": name("torch.nn.modules.linear", "Linear") + b.EMPTY_TUPLE + b"\x81",
    }
    files = {f"call-{key}": (beside(value), NOT_NEEDED) for key, value in wanted.items()}
    for protocol in range(2, 6):
        files[f"reduce-{protocol}"] = (
            b.torch_zip(pickle.dumps({"w": System()}, protocol)),
            NOT_NEEDED,
        )
    files["reduce-eval"] = b.torch_zip(pickle.dumps(Eval(), 4)), NOT_NEEDED
    files["legacy-os-system"] = legacy(call(name("posix", "system"), run)), NOT_NEEDED
    files["plain-pickle"] = pickle.dumps(System(), 4), "is a pickle, but not one of torch's"
    files["reduce-0"] = pickle.dumps(System(), 0), "is no checkpoint that is known"
    return files


def opcodes() -> Files:
    wanted = {
        "inst": b"(" + text("x") + b"iposix\nsystem\n",
        "obj": b"(" + name("torch", "Size") + b"o",
        "ext1": b"\x82\x01",
        "ext2": b"\x83\x01\x00",
        "ext4": b"\x84\x01\x00\x00\x00",
        "persid-text": b"Pstorage\n",
        "newobj-ex": name("torch", "Size") + b")}\x92",
        "get-text": b"g0\n",
        "long4": b"\x8b" + struct.pack("<i", 5000) + b"\x7f" * 5000,
        "int-text": b"I12\n",
        "int-of-a-million-digits": b"I" + b"9" * MILLION + b"\n",
        "text-with-escapes": b"S'\\o'\n",
        "next-buffer": b"\x97",
        "dup": b"N2",
    }
    files = {f"opcode-{key}": (beside(value), OPCODE) for key, value in wanted.items()}
    broken = {
        "unknown": b"\xff",
        "underflow": b"\x87" * 9,
        "no-mark": b"u" * 9,
        "odd-items": b"}(" + text("k") + b"u",
        "reduce-of-text": text("x") + b")R",
        "reduce-of-dict": name("torch", "Size") + b"}R",
        "dtype-called": call(name("torch", "float32")),
        "storage-called": call(name("torch", "FloatStorage"), number(5)),
        "build-on-name": name("torch", "Size") + pairs({"__call__": b.NONE}) + b"b",
        "build-on-tuple": b")" + pairs({"a": b.NONE}) + b"b",
        "append-to-tuple": b")Na",
        "items-for-text": text("x") + b"(" + text("k") + b"Nu",
        "memo-hole": b"h\x07",
        "persistent-text": text("0") + b"Q",
        "name-of-numbers": b"K\x01K\x02\x93",
        "too-many-arguments": call(name("torch", "Size"), *[b.NONE] * 9),
        "long-name": b"c" + b"a" * 3000 + b"\n" + b"b" * 3000,
        "text-without-end": b"X" + struct.pack("<I", 9000) + b"abc",
    }
    files |= {f"broken-{key}": (beside(value), DAMAGED) for key, value in broken.items()}
    files["no-stop"] = b.torch_zip(b"\x80\x02}"), DAMAGED
    files["empty-pickle"] = b.torch_zip(b""), DAMAGED
    files["only-stop"] = b.torch_zip(b"\x80\x02."), DAMAGED
    return files


def bombs() -> Files:
    laughs = b"](]q\x00(" + text("ha") * 10 + b"e"
    for i in range(1, 30):
        laughs += b"]" + b"q" + bytes([i]) + b"(" + (b"h" + bytes([i - 1])) * 10 + b"e"
    collide = b"".join(number(i * (2**61 - 1)) + b"N" for i in range(60_000))
    huge = b"\x8d" + struct.pack("<Q", 1 << 62)
    files = {
        "memo-laughs": (laughs + b"e", TOO_DEEP),
        "memo-itself": (b"]q\x00h\x00a", TOO_DEEP),
        "memo-index": (b"Nr\xff\xff\xff\xff", "numbers its parts"),
        "deep-lists": (b"]" * DEEP + b"a" * (DEEP - 1), TOO_DEEP),
        "deep-tuples": (b")" + b"\x85" * DEEP, TOO_DEEP),
        "deep-dicts": ((b"}" + text("k")) * 50_000 + b"}" + b"s" * 50_000, TOO_DEEP),
        "deep-marks": (b"(" * MILLION, "300,000 steps"),
        "million-opcodes": (b"K\x01" * MILLION, "300,000 steps"),
        "million-dicts": (b"](" + b"}" * MILLION + b"e", "300,000 steps"),
        "many-parts": (b"](" + b"N" * 250_000 + b"e", TOO_DEEP),
        "long-text": (text(b"a" * (2 << 20)), "more text than"),
        "huge-text": (huge, "more text than"),
        "huge-bytes": (b"\x8e" + huge[1:], "more text than"),
        "same-key-twice": (b"}(" + text("k") + b"N" + text("k") + b"Nu", "twice"),
    }
    out: Files = {f"bomb-{key}": (beside(value), why) for key, (value, why) in files.items()}
    out["bomb-colliding-keys"] = (
        b.torch_zip(program(b"}(" + collide + b"u")),
        "no tensors under names",
    )
    wide = text("\U0001f600" + "a" * 1000)
    out["bomb-wide-text"] = b.torch_zip(program(b"](" + wide * 15_000 + b"e")), "holds a list"
    out["bomb-large-pickle"] = b.torch_zip(bytes(17 << 20)), "at most 16,777,216 are read"
    out["bomb-legacy-opcodes"] = legacy(b"K\x01" * MILLION), "300,000 steps"
    out["bomb-legacy-text"] = (
        legacy(b"(" + text(b"a" * (1 << 20 >> 1)) * 70 + b"t"),
        "more text than",
    )
    return out


def tensors() -> Files:
    fields = {
        "stride-0-two-petabytes": (tensor((1 << 24, 1 << 25), (0, 0)), "impossible shape"),
        "stride-0-sixteen-gigabytes": (
            tensor((1 << 16, 1 << 16), (0, 0)),
            r"save expanded tensors with .clone\(\)",
        ),
        "negative-stride": (tensor(strides=(3, -1)), SHAPE),
        "negative-offset": (tensor(offset=-1), SHAPE),
        "negative-size": (tensor((2, -3)), SHAPE),
        "offset-beyond": (tensor(offset=1), "outside its storage"),
        "huge-offset": (tensor(offset=1 << 62), "outside its storage"),
        "huge-stride": (tensor(strides=(1 << 62, 1)), "outside its storage"),
        "endless-numbers": (tensor(offset=1 << 2000), "outside its storage"),
        "shape-overflow": (tensor((1 << 32, 1 << 32)), SHAPE),
        "empty-but-huge": (tensor((0, 1 << 62)), SHAPE),
        "many-axes": (tensor((1,) * 200, (1,) * 200), SHAPE),
        "axes-differ": (tensor((2, 3), (1,)), SHAPE),
        "size-of-floats": (tensor((2.0, 3.0)), SHAPE),
        "size-of-bools": (tensor((True, True)), SHAPE),
        "no-storage": (tensor(where=b.NONE), DAMAGED),
        "tensor-as-storage": (tensor(where=tensor()), DAMAGED),
        "count-beyond-entry": (tensor(where=b.storage(count=7)), "lacks the 28 bytes"),
        "huge-count": (tensor(where=b.storage(count=1 << 70)), SHAPE),
        "negative-count": (tensor(where=b.storage(count=-6)), "in a way that torch does not"),
        "bool-count": (tensor(where=b.storage(count=True)), "in a way that torch does not"),
        "missing-storage": (tensor(where=b.storage("9")), "lacks the 24 bytes"),
        "storage-elsewhere": (tensor(where=b.storage("../data.pkl")), "lacks the 24 bytes"),
        "unknown-storage": (tensor(where=b.storage(kind="SecretStorage")), NOT_NEEDED),
        "quantised-storage": (tensor(where=b.storage(kind="QInt8Storage")), "is quantised"),
        "cuda-storage": (tensor(where=b.storage(module="torch.cuda")), NOT_NEEDED),
        "untyped": (
            tensor(where=b.storage(kind="UntypedStorage", module="torch.storage")),
            DAMAGED,
        ),
        "storage-of-a-dtype": (
            tensor(where=b.storage(kind="float32")),
            "in a way that torch does not",
        ),
        "module-id": (
            b.tuple_of(text("module"), name("torch", "Size"), *[b.NONE] * 3) + b"Q",
            "something else than",
        ),
        "short-id": (b.tuple_of(text("storage")) + b"Q", "something else than"),
    }
    out: Files = {
        f"tensor-{key}": (b.torch_zip(program(pairs({"w": value}))), why)
        for key, (value, why) in fields.items()
    }
    for key, bad in {"surrogates": b"\xed\xa0\x80", "nul": b"a\0b", "empty": b""}.items():
        out[f"tensor-name-{key}"] = b.torch_zip(program(pairs({bad: tensor()}))), "is no name"
    out["tensor-name-no-utf8"] = b.torch_zip(program(pairs({b"\xff\xfe": tensor()}))), DAMAGED
    ties = {
        f"w{i}": (
            b"h\x00" if i else tensor((1 << 18,), (1,), 0, b.storage(count=1 << 18)) + b"q\x00"
        )
        for i in range(99)
    }
    out["tensor-tied-99-times"] = (
        b.torch_zip(program(pairs(ties)), values=bytes(1 << 20)),
        "save shared and expanded",
    )
    return out
