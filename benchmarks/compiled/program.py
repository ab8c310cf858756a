"""A compiled program as its kernels: what each reads and writes, and the products that it computes.

Read from XLA's text. A kernel is an instruction that runs on the device; the body of a loop runs as often as the loop.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from fmjax.engine.hlo import ARRAY, COMMENT, COMPUTATION, ENTRY, TRIPS

Shape = tuple[str, tuple[int, ...]]  # dtype and sizes
LINE = re.compile(r"^\s+(?P<root>ROOT )?%?(?P<name>[\w.\-]+) = (?P<what>.*)$")
OPCODE = re.compile(r"(?P<opcode>[a-z][\w\-]*)\(")
NAME = re.compile(r"%([\w.\-]+)")
NUMBER = re.compile(r"\d+")
CONTRACTED = re.compile(r"lhs_contracting_dim(?:s=\{|ensions\":\[)([\d,\"]*)")
TARGET = re.compile(r'custom_call_target="([^"]+)"')
# a kernel in Pallas, by the name that it was given
OWN = re.compile(r'op_name="[^"]*?(\w+)/pallas_call"')


class Pass(NamedTuple):
    """A pass of attention: its products, and the tokens that its tiles are filled up to."""

    way: str
    products: int
    tile: int


# By a part of a kernel's name, the longer ones first. cuDNN's backward pass has five products, and fmjax's computes the
# scores and the gradients of the weights twice
ATTENTION = {
    "fmhaSoftmaxBackward": Pass("backward", 5, 128),
    "fmhaSoftmax": Pass("forward", 2, 128),
    "attention_gradients": Pass("backward", 7, 16),
    "attention": Pass("forward", 2, 16),
}
ROOT = ""  # the name by which a computation's result goes, beside its own

# no kernel: names for what is there already
NAMES = "parameter constant get-tuple-element tuple bitcast after-all partition-id replica-id"
FREE = frozenset((*NAMES.split(), "opt-barrier"))
EXCHANGES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
MOVES = frozenset(["copy", "transpose", "bitcast", "reshape", "parameter", "tuple", "constant"])


@dataclass(frozen=True)
class Operation:
    """A line of a computation."""

    name: str
    opcode: str
    result: str
    operands: tuple[str, ...]
    rest: str  # operands and attributes

    @property
    def shapes(self) -> list[Shape]:
        """Of the result, or of each of several."""
        return shapes(self.result)

    def attribute(self, name: str) -> str:
        """A computation that an attribute names."""
        found = re.search(rf"\b{name}=%?([\w.\-]+)", self.rest)
        return found[1] if found else ""


Computation = dict[str, Operation]


@dataclass(frozen=True)
class Kernel:
    """What runs on the device."""

    kind: str
    operation: Operation
    times: int  # in a run of the program
    trips: int  # of the innermost loop around it; 1 outside of loops
    bytes: float  # read and written, of one time
    flops: float  # of its products, of one time
    shapes: tuple[Shape, ...]  # of operands and results
    stack: float = 0.0  # bytes that go to or come from what a loop saves
    inner: frozenset[str] = field(default_factory=frozenset)  # operations that a fusion joins


def shapes(text: str) -> list[Shape]:
    """All arrays of a type."""
    found = ARRAY.finditer(text)
    return [(x["dtype"], tuple(map(int, NUMBER.findall(x["shape"])))) for x in found]


def size(shape: Shape) -> int:
    """Bytes of an array."""
    bits = NUMBER.search(shape[0])
    return math.prod(shape[1]) * max(int(bits[0]) if bits else 8, 8) // 8


def total(found: list[Shape]) -> int:
    """Bytes of arrays, the work space of libraries left out."""
    return sum(size(x) for x in found if x[0] not in ("s8", "u8"))


def computations(text: str) -> dict[str, Computation]:
    """Name -> operations by their names, of every computation; that of the first to run is `hlo.ENTRY`."""
    found: dict[str, Computation] = {}
    current: Computation = {}
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            current = found.setdefault(ENTRY if head["entry"] else head["name"], {})
        elif match := LINE.match(line):
            operation = _operation(match["name"], COMMENT.sub("", match["what"]))
            current[operation.name] = operation
            if match["root"]:
                current[ROOT] = operation
    return found


def _operation(name: str, what: str) -> Operation:
    # a type holds no lower-case word before a bracket, so the first one is the operation
    match = OPCODE.search(what)
    if match is None:
        return Operation(name, "", what, (), "")
    rest = what[match.end() :]
    operands = tuple(NAME.findall(rest[: _closing(rest)]))
    return Operation(name, match["opcode"], what[: match.start()], operands, rest)


def _closing(rest: str) -> int:
    """Where the bracket closes that is open at the start."""
    level = 1
    for index, letter in enumerate(rest):
        level += {"(": 1, ")": -1}.get(letter, 0)
        if level == 0:
            return index
    return len(rest)


def kernels(text: str) -> list[Kernel]:
    """Those of a program, in the order in which they run."""
    program = computations(text)
    return list(_kernels(program, ENTRY, 1, 1))


def _kernels(
    program: Mapping[str, Computation], name: str, times: int, trips: int
) -> Iterator[Kernel]:
    """Those of a computation and of all that it runs."""
    scope = program[name]
    for operation in _lines(scope):
        if operation.opcode in FREE or operation.opcode.endswith("-done"):
            continue
        if operation.opcode == "while":
            known = TRIPS.search(operation.rest)
            rounds = int(known[1]) if known else 1
            yield from _kernels(program, operation.attribute("body"), times * rounds, rounds)
            continue
        inner = operation.attribute("to_apply") or operation.attribute("calls")
        if operation.opcode in ("call", "conditional", "async-start") and inner in program:
            yield from _kernels(program, inner, times, trips)
            continue
        yield _kernel(program, scope, operation, times, trips)


def _lines(scope: Computation) -> Iterator[Operation]:
    """The operations of a computation, each once."""
    return (operation for name, operation in scope.items() if name != ROOT)


def _kernel(
    program: Mapping[str, Computation],
    scope: Computation,
    operation: Operation,
    times: int,
    trips: int,
) -> Kernel:
    """One operation of the entry or of a loop."""
    taken = [shape for name in operation.operands if name in scope for shape in scope[name].shapes]
    given, opcode = operation.shapes, operation.opcode
    read, written = sum(map(size, taken)), sum(map(size, given))
    inside: Computation = {}
    kind, moved, flops, stack = opcode, float(read + written), 0.0, 0.0
    if opcode in ("fusion", "fusion-start"):
        # one that starts gives back what it takes too: its computation says what is read and written

        inside = program[operation.attribute("calls")]
        moved, stack = _fused(inside)
        flops = sum(_product(x, inside) for x in _lines(inside) if x.opcode == "dot")
    elif opcode == "custom-call":
        kind = _target(operation)
        # what a library is lent to work in is neither read nor written as a whole
        moved = float(read + total(given))
        flops = _flops(kind, operation, scope)
    elif opcode == "dot":
        flops = _product(operation, scope)
    elif opcode.removesuffix("-start") in EXCHANGES:
        kind, moved = opcode.removesuffix("-start"), 0.0
    elif opcode == "dynamic-update-slice":
        moved = 2.0 * sum(map(size, scope[operation.operands[1]].shapes))
    elif opcode == "dynamic-slice":
        moved = 2.0 * written
    joined = frozenset(x.opcode for x in _lines(inside))
    return Kernel(kind, operation, times, trips, moved, flops, (*taken, *given), stack, joined)


def _target(operation: Operation) -> str:
    found = OWN.search(operation.rest) or TARGET.search(operation.rest)
    return found[1] if found else "custom-call"


def _flops(kind: str, operation: Operation, scope: Computation) -> float:
    """Of a call of a library or a kernel: a product, or attention, which fills its tiles up with what is no token."""
    if "matmul" in kind or "gemm" in kind:
        return _product(operation, scope)
    found = attends(kind)
    if found is None:
        return 0.0
    images, tokens, heads, width = scope[operation.operands[0]].shapes[0][1]
    seen = scope[operation.operands[1]].shapes[0][1][1]
    scores = math.prod(-(-count // found.tile) * found.tile for count in (tokens, seen))
    return 2.0 * found.products * images * heads * scores * width


def attends(kind: str) -> Pass | None:
    """The pass of attention that a kernel computes; None: another one."""
    return next((found for name, found in ATTENTION.items() if name in kind), None)


def _product(operation: Operation, scope: Computation) -> float:
    """Two for each number of the result and each that is added up for it."""
    left = scope[operation.operands[0]].shapes[0][1]
    found = CONTRACTED.search(operation.rest)
    axes = map(int, NUMBER.findall(found[1])) if found else ()
    depth = math.prod(left[axis] for axis in axes)
    return 2.0 * depth * math.prod(operation.shapes[0][1])


def _fused(inside: Computation) -> tuple[float, float]:
    """Bytes that a fusion reads and writes, and those of them that go to or come from a loop's stack.

    Of an operand that is only cut, the slices are read; of a result that is written into a larger one, the slice.
    """
    users: dict[str, list[Operation]] = defaultdict(list)
    for operation in _lines(inside):
        for name in operation.operands:
            users[name].append(operation)
    moved = stack = 0.0
    for operation in _lines(inside):
        if operation.opcode != "parameter":
            continue
        uses = list(_uses(operation, users))
        if uses and all(_is_part(use, name) for use, name in uses):
            cut = [use for use, _ in uses if use.opcode != "dynamic-update-slice"]
            moved += sum(total_of(use) for use in cut)
            stack += sum(total_of(use) for use in cut if use.opcode == "dynamic-slice")
        else:
            moved += total_of(operation)
    for result in _results(inside):
        if result.opcode == "dynamic-update-slice":
            part = total_of(inside[result.operands[1]])
            moved, stack = moved + part, stack + part
        else:
            moved += total_of(result)
    return moved, stack


def total_of(operation: Operation) -> float:
    """Bytes of all results of an operation."""
    return float(sum(map(size, operation.shapes)))


def _uses(
    operation: Operation, users: Mapping[str, list[Operation]]
) -> Iterator[tuple[Operation, str]]:
    """Who uses an array, and by which name; what only renames it is looked through."""
    for user in users.get(operation.name, ()):
        if user.opcode in ("bitcast", "copy"):
            yield from _uses(user, users)
        else:
            yield user, operation.name


def _is_part(use: Operation, name: str) -> bool:
    """Whether only a part of an array is touched."""
    if use.opcode == "dynamic-update-slice":
        return use.operands[0] == name
    return use.opcode in ("dynamic-slice", "slice")


def _results(inside: Computation) -> Iterator[Operation]:
    """What a fusion writes."""
    root = inside[ROOT]
    for name in root.operands if root.opcode == "tuple" else (root.name,):
        operation = inside[name]
        while operation.opcode == "bitcast":
            operation = inside[operation.operands[0]]
        yield operation
