"""Pickles read as data: an interpreter for the few opcodes that torch.save writes, which can call nothing but a table.

A pickle is a program. This one may make lists, tuples, dicts, texts and numbers, and may use names only as far as the
caller's table gives them a meaning; every other opcode is refused before its argument is read, and every other name.
pickletools only says which opcode a byte is and how its argument is written. Nothing is imported, looked up or run.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedIOBase
from typing import Any

from weights_conversion.errors import CheckpointError, quoted
from weights_conversion.readers.common import STATE_DICT_ONLY

MAX_PICKLE_BYTES = 16 << 20  # 1,500 tensors take 160 kB; text can grow fourfold in memory
MAX_OPCODES = 300_000  # 9,000 tensors; running them takes a fifth of a second
MAX_COPIES = 300_000  # parts of arguments, which calls copy; a tensor has about 12
MAX_NODES = 200_000  # of what comes out, shared parts counted each time: a few kB can stand for a billion lists
MAX_DEPTH = 64  # of what comes out; modules nest about 10 deep
MAX_TEXT_BYTES = 1 << 20  # of one text or number
MAX_LINE_BYTES = 4096  # of one module or class name
LONG_BITS = 64  # of a number that is a key; they count blocks and parameters

Call = Callable[..., object]


@dataclass(frozen=True, slots=True)
class Global:
    """A name that the table knows: `call` says what calling it makes, and is never anything of that name."""

    name: str
    call: Call


@dataclass(frozen=True, slots=True, eq=False)
class Inert:
    """Something that is neither a tensor nor a container of tensors: kept as its type's name."""

    name: str


@dataclass(frozen=True, slots=True, eq=False)
class Script:
    """An object of a TorchScript class: its attributes, without the class."""

    name: str
    attributes: dict[str, object] = field(default_factory=dict)


Lookup = Callable[[str, str], object]
Persistent = Callable[[tuple[object, ...]], object]


def unpickle(file: BufferedIOBase, lookup: Lookup, persistent: Persistent) -> object:
    """The object that the pickle at the file's position stands for; the file is left behind its end.

    lookup gives (module, name) a meaning, persistent a persistent id. Raises CheckpointError for whatever is not on the
    list, for damage, and for what would take too long or too much memory.
    """
    machine = _Machine(lookup, persistent)
    try:
        root = machine.run(_Source(file))
    except CheckpointError:
        raise
    except (ValueError, IndexError, TypeError, AttributeError, OverflowError, KeyError) as error:
        reason = quoted(f"{type(error).__name__}: {error}")
        raise CheckpointError(
            f"has a pickle that is damaged or that torch did not write ({reason})"
        ) from error
    _check_size(root)
    return root


class _Source:
    """What pickletools reads from: never more at once, or in all, than a checkpoint needs."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._read, self._readline, self._left = file.read, file.readline, MAX_PICKLE_BYTES

    def read(self, size: int) -> bytes:
        self._left -= size
        if size > MAX_TEXT_BYTES or self._left < 0:
            raise CheckpointError(
                f"has a pickle with more text than names and settings need; {STATE_DICT_ONLY}"
            )
        return self._read(size)

    def line(self) -> str:
        data = self._readline(MAX_LINE_BYTES)
        self._left -= len(data)
        if not data.endswith(b"\n") or self._left < 0:
            raise ValueError("a name without an end")
        return data[:-1].decode()


class _Machine:
    """A stack, the stacks below each open mark, and the memo."""

    def __init__(self, lookup: Lookup, persistent: Persistent) -> None:
        self.lookup, self.persistent = lookup, persistent
        self.stack: list[object] = []
        self.marks: list[list[object]] = []
        self.memo: dict[int, object] = {}
        self.copies = 0

    def run(self, source: _Source) -> object:
        """What is on top of the stack when the program stops."""
        for _ in range(MAX_OPCODES):
            code = source.read(1)
            if code == STOP:
                return self.stack.pop()
            step = STEPS.get(code)
            if step is None:
                raise _refusal(code)
            # the argument, where the code has one, stands behind it in the stream
            act, argument = step
            act(self, argument(source) if argument else None)
        raise CheckpointError(f"has a pickle of more than {MAX_OPCODES:,} steps; {STATE_DICT_ONLY}")

    def charge(self, *containers: object) -> None:
        """Counts the parts of what is about to be copied or walked through: a few bytes can name a long list again and
        again, and each call would make another one of it."""
        self.copies += sum(len(c) for c in containers if isinstance(c, (dict, list, tuple)))
        if self.copies > MAX_COPIES:
            raise CheckpointError(
                f"has a pickle whose calls copy more than {MAX_COPIES:,} parts; {STATE_DICT_ONLY}"
            )

    def push(self, value: object) -> None:
        self.stack.append(value)

    def mark(self, _: object) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def to_mark(self) -> list[object]:
        # what was pushed since the mark is an argument; the stack from before it goes on
        items, self.stack = self.stack, self.marks.pop()
        return items

    def put(self, index: int | None) -> None:
        # newer protocols leave the number out: the next one is meant
        index = len(self.memo) if index is None else index
        if index > MAX_OPCODES:
            raise CheckpointError(
                f"has a pickle that numbers its parts up to {index:,}; torch did not write it"
            )
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.push(self.memo[index])

    def tuple_of(self, count: int) -> None:
        if count > len(self.stack):
            raise IndexError("not enough on the stack")
        items = tuple(self.stack[-count:])
        del self.stack[-count:]
        self.push(items)

    def append(self, items: list[object]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Inert):
            raise TypeError(f"items for {type(target).__name__}")

    def set_items(self, items: list[object]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, dict):
            raise TypeError(f"items for {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            set_item(target, key, value)

    def global_(self, module: object, name: object) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        self.push(self.lookup(module, name))

    def reduce(self, _: object) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or not isinstance(arguments, tuple):
            raise TypeError(f"a call of {type(function).__name__}")
        # a call may copy its arguments, and each of them
        self.charge(arguments, *arguments)
        self.push(function.call(*arguments))

    def build(self, _: object) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Script):
            self.charge(state)
            for key, value in state.items() if isinstance(state, dict) else ():
                set_item(target.attributes, key, value)
        elif not isinstance(target, (dict, Inert)):
            # a state dict's _metadata, a dtype's byte order: not needed
            raise TypeError(f"a state for {type(target).__name__}")

    def persistent_id(self, _: object) -> None:
        key = self.stack.pop()
        if not isinstance(key, tuple):
            raise TypeError("a persistent id that is no tuple")
        self.charge(key)
        self.push(self.persistent(key))


Action = Callable[[_Machine, Any], None]


def set_item(target: dict[str, object], key: object, value: object) -> None:
    """target[key] = value, keys as text: numbers could be chosen to collide, and deep tuples to crash on hashing; long
    numbers take long to write out."""
    # an optimiser's state is keyed by numbers, which are kept; anything else becomes a name of its own
    if not isinstance(key, str):
        plain = type(key) is int and key.bit_length() <= LONG_BITS
        key = str(key) if plain else f"<{type(key).__name__} {len(target)}>"
    if key in target:
        raise CheckpointError(
            f"has a pickle that sets {quoted(key)} twice; the file is damaged or hostile"
        )
    target[key] = value


def _refusal(code: bytes) -> Exception:
    name = next((op.name for op in pickletools.opcodes if op.code.encode("latin-1") == code), None)
    if name is None:
        return ValueError(f"{code!r} is no opcode" if code else "it ends in the middle")
    return CheckpointError(
        f"has a pickle with the opcode {name}, which torch does not write; {STATE_DICT_ONLY}"
    )


def _stack_named(machine: _Machine, _: object) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.global_(module, name)


ARGUMENTS = (
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "SHORT_BINSTRING", "BINSTRING"),
    *(
        "SHORT_BINUNICODE",
        "BINUNICODE",
        "BINUNICODE8",
        "SHORT_BINBYTES",
        "BINBYTES",
        "BINBYTES8",
        "BYTEARRAY8",
    ),
)
ACTIONS: dict[str, Action] = {
    **dict.fromkeys(ARGUMENTS, _Machine.push),
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push(Inert("set")),
    "MARK": _Machine.mark,
    "TUPLE": lambda machine, _: machine.push(tuple(machine.to_mark())),
    "TUPLE1": lambda machine, _: machine.tuple_of(1),
    "TUPLE2": lambda machine, _: machine.tuple_of(2),
    "TUPLE3": lambda machine, _: machine.tuple_of(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.to_mark()),
    "BINPUT": _Machine.put,
    "LONG_BINPUT": _Machine.put,
    "MEMOIZE": lambda machine, _: machine.put(None),
    "BINGET": _Machine.get,
    "LONG_BINGET": _Machine.get,
    "GLOBAL": lambda machine, names: machine.global_(*names),
    "STACK_GLOBAL": _stack_named,
    "REDUCE": _Machine.reduce,
    "NEWOBJ": _Machine.reduce,
    "BUILD": _Machine.build,
    "BINPERSID": _Machine.persistent_id,
}
STOP = b"."
# code -> what it does, and how its argument is read; a name's two lines are taken as they are, without escapes
STEPS: dict[bytes, tuple[Action, Callable[[Any], object] | None]] = {
    op.code.encode("latin-1"): (ACTIONS[op.name], getattr(op.arg, "reader", None))
    for op in pickletools.opcodes
    if op.name in ACTIONS
}
STEPS[b"c"] = ACTIONS["GLOBAL"], lambda source: (source.line(), source.line())


def parts(value: object) -> tuple[object, ...]:
    """What a container holds, nothing for anything else."""
    if isinstance(value, dict):
        return tuple(value.values())
    if isinstance(value, (list, tuple)):
        return tuple(value)
    return tuple(value.attributes.values()) if isinstance(value, Script) else ()


def _check_size(root: object) -> None:
    """Raises CheckpointError where walking the object would take long or never end."""
    # a few opcodes can nest a list in itself a hundred times, which walked is 2^100 parts
    waiting, nodes = [(root, 0)], 1
    while waiting:
        value, depth = waiting.pop()
        inner = parts(value)
        nodes += len(inner)
        if depth > MAX_DEPTH or nodes > MAX_NODES:
            raise CheckpointError(
                f"has a pickle of more than {MAX_NODES:,} parts, or nested over {MAX_DEPTH} deep; {STATE_DICT_ONLY}"
            )
        waiting.extend((part, depth + 1) for part in inner)
