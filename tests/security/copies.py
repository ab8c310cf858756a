"""Small pickles whose allowed calls copy, nest or count without end: name -> (content, part of the refusal)."""

from __future__ import annotations

import struct

from tests.security import build as b
from tests.security.build import call, legacy, name, number, pairs, program, tensor, text, tuple_of
from tests.security.pickled import DAMAGED, MILLION, SHAPE, Files, beside

COSTLY = "calls copy more than"
TWO_WAYS = "describes the storage '0' in two ways"
PLACE = b.storage() + b"q\x05"  # a storage, kept in the memo as 5
AGAIN = b"h\x05"
SCRIPT = ("x/constants.pkl", program(b")"))
LONG_NAME = "a" * MILLION


def many(count: int, item: bytes = b"N") -> bytes:
    """Opcodes that push so many items."""
    return item * count


def numbered(count: int) -> bytes:
    """Keys that differ, each with None."""
    return b"".join(b"J" + struct.pack("<i", i) + b"N" for i in range(count))


def often(container: bytes, function: bytes, times: int, step: bytes = b"h\x01h\x00\x85R") -> bytes:
    """A list of what `step` makes, `times` over, of a container in the memo (0) and a function (1)."""
    return b"](" + container + b"q\x00" + function + b"q\x01" + step * times + b"e"


def repeats() -> Files:
    """Each copies, or walks through, one long container again and again."""
    table = b"}(" + numbered(4000) + b"u"
    rows = b"](" + b"".join(b"J" + struct.pack("<i", i) + b"N\x86" for i in range(4000)) + b"e"
    nothings = b"(" + many(4000) + b"t"
    falses = b"}(" + b"".join(b"J" + struct.pack("<i", i) + b"\x89" for i in range(4000)) + b"u"
    ordered = name("collections", "OrderedDict")
    rebuild = name("torch._utils", "_rebuild_tensor_v2")
    view = AGAIN + b"K\x00K\x02\x85K\x01\x85\x89)"
    flagged = b"(" + PLACE + often(falses, rebuild, 30_000, b"h\x01(" + view + b"h\x00tR") + b"t"
    stored = (
        b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + number(6)
    )
    stored += many(4000) + b"tq\x02"
    typed = name("torch._tensor", "_rebuild_from_type_v2") + b"q\x02"
    wanted = {
        "ordered-dict": often(table, ordered, 60_000),
        "counter": often(table, name("collections", "Counter"), 60_000),
        "ordered-dict-of-pairs": often(rows, ordered, 60_000),
        "size": often(nothings, name("torch", "Size"), 60_000),
        "size-of-list": often(b"](" + many(4000) + b"e", name("torch", "Size"), 60_000),
        "arguments": often(nothings, name("torch", "device"), 90_000, b"h\x01h\x00R"),
        "arguments-of-new": often(
            nothings, name("argparse", "Namespace"), 90_000, b"h\x01h\x00\x81"
        ),
        "arguments-inside": b"("
        + typed
        + often(nothings, rebuild, 60_000, b"h\x02(h\x01Nh\x00NtR")
        + b"t",
        "flags": flagged,
        "persistent-ids": b"](" + stored + b"h\x02Q" * 60_000 + b"e",
        "into-the-memo": often(table, ordered, 60_000, b"h\x01h\x00\x85R\x94"),
    }
    files = {f"copy-{key}": (beside(value), f"{COSTLY}|{DAMAGED}") for key, value in wanted.items()}
    built = often(table, name("__torch__", "M"), 50_000, b"h\x01)\x81h\x00b")
    files["copy-script-states"] = (
        b.torch_zip(program(pairs({"w": tensor(), "m": built})), SCRIPT),
        COSTLY,
    )
    lists = often(nothings, name("torch.jit._pickle", "build_intlist"), 90_000, b"h\x01h\x00R")
    files["copy-script-lists"] = (
        b.torch_zip(program(pairs({"w": tensor(), "m": lists})), SCRIPT),
        COSTLY,
    )
    files["copy-legacy"] = legacy(often(table, ordered, 60_000)), COSTLY
    return files


def counts() -> Files:
    """Many parts, long names, deep wrappers: what is cheap once is not cheap a hundred thousand times."""
    axes = b"(" + b"K\x01" * 32 + b"tq\x06"
    rebuild = name("torch._utils", "_rebuild_tensor") + b"q\x07"
    view = b"h\x07(h\x05K\x00h\x06h\x06tR"
    keys = b"".join(number((1 << 2030) + i) + b"N" for i in range(30_000))
    typed = name("torch._tensor", "_rebuild_from_type_v2") + b"q\x01"
    nested = typed + b"(h\x01N" * 9000 + b")" + b"Nt" * 9000 + b"R"
    named = b"}(" + text(LONG_NAME) + b"q\x00" + b"}(h\x00" + tensor() + b"u" + b"u"
    labels = b"](" + text(LONG_NAME) + b"q\x00" + b"h\x00" * 90_000 + b"e"
    head = [
        program(number(0x1950A86A20F9469CFC6C)),
        program(number(1001)),
        program(pairs({"little_endian": b"\x88"})),
    ]
    keyed = b"".join([*head, program(b.legacy_tensor()), program(labels)])
    ties = (
        b"}("
        + text("w")
        + tensor((), ())
        + b"q\x00"
        + b"".join(_tied(i) for i in range(49_990))
        + b"u"
    )
    return {
        "count-axes": (
            beside(b"(" + PLACE + axes + rebuild + b"](" + view * 90_000 + b"et"),
            f"{COSTLY}|{SHAPE}",
        ),
        "count-long-integers-as-keys": (
            b.torch_zip(program(b"}(" + keys + b"u")),
            "no tensors under names",
        ),
        "count-long-names": (b.torch_zip(program(named)), "no name|too long"),
        "count-legacy-keys": (keyed, "does not list the storages"),
        "count-tied-scalars": (b.torch_zip(program(ties)), f"tensors, more|{COSTLY}"),
        "count-prefixes": (
            b.torch_zip(program(pairs({"module." * 149_000 + "w": tensor()}))),
            "no name|too long",
        ),
        "count-prefixes-in-turn": (
            b.torch_zip(program(pairs({"module._orig_mod." * 60_000 + "w": tensor()}))),
            "no name|too long",
        ),
        "count-prefix-only": (b.torch_zip(program(pairs({"module.": tensor()}))), "is no name"),
        "deep-from-type": (beside(nested), DAMAGED),
        "deep-from-type-legacy": (legacy(nested), DAMAGED),
        "deep-from-type-script": (b.torch_zip(program(nested), SCRIPT), DAMAGED),
    }


def controls() -> dict[str, bytes]:
    """What allowed calls may well do: these load, at once."""
    deep = b"".join(b"}" + text("model") for _ in range(60))
    state = b"}(" + text("w") + tensor() + numbered(90_000) + b"u"
    shared = b"}(" + text("t") + tensor() + text(LONG_NAME) + b"Nuq\x00"
    others = b"}(" + text("w") + shared + b"".join(_tied(i) for i in range(9000)) + b"u"
    ordered = call(name("collections", "OrderedDict"), b"](" + text("a") + b"N\x86e")
    return {
        "control-wrappers": b.torch_zip(program(deep + state + b"s" * 60)),
        "control-long-names-of-others": b.torch_zip(program(others)),
        "control-ordered-dict": beside(ordered),
        "control-one-storage": b.torch_zip(
            program(pairs({"w": tensor(), "v": tensor((3, 2), (1, 3))}))
        ),
        "control-prefixes": b.torch_zip(program(pairs({"module._orig_mod." * 25 + "w": tensor()}))),
    }


def _tied(index: int) -> bytes:
    return text(f"w{index}") + b"h\x00"


def two_ways() -> Files:
    """One storage in two descriptions; with the smaller one last, the larger reaches behind its entry."""
    more, less = tensor((1000,), (1,), 0, b.storage(count=1000)), tensor()
    half = tensor((12,), (1,), 0, b.storage(kind="HalfStorage", count=12))
    untyped = b.storage(kind="UntypedStorage", module="torch.storage", count=24)
    rebuild = name("torch._utils", "_rebuild_tensor_v3")
    rest = [
        number(0),
        tuple_of(number(24)),
        tuple_of(number(1)),
        number(False),
        name("collections", "OrderedDict"),
    ]
    bytes_ = call(rebuild, untyped, *rest[:4], call(rest[4]), name("torch", "uint8"))
    wanted = {
        "more-first": pairs({"a": more, "w": less}),
        "more-last": pairs({"w": less, "a": more}),
        "kinds": pairs({"w": less, "h": half}),
        "untyped": pairs({"w": less, "u": bytes_}),
        "beside": pairs({"w": less, "optimizer": pairs({"a": more})}),
        "alone": pairs({"w": less, "list": b"](" + b.storage(count=7) + b"e"}),
    }
    files = {
        f"two-ways-{key}": (b.torch_zip(program(value)), TWO_WAYS) for key, value in wanted.items()
    }
    body = program(pairs({"a": more, "w": less}))
    files["two-ways-deflated"] = b.torch_zip(body, method=8), TWO_WAYS
    files["two-ways-script"] = b.torch_zip(body, SCRIPT), TWO_WAYS
    return files
