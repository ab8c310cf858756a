"""The text of a compiled program (XLA's HLO), read as far as it says what devices exchange."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

# "ENTRY %main (p: f32[8]) -> f32[] {", and a line of what it does: "  ROOT %y = f32[] all-reduce(%x), channel_id=1"
COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) .*->.*\{\s*$")
INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (?P<what>.*)$")
COMMENT = re.compile(r"/\*.*?\*/")
ENTRY = ""  # the name that the computation goes by with which a program begins

ARRAY = re.compile(r"\b(?P<dtype>pred|[a-z]+?(?P<bits>\d+)\w*)\[(?P<shape>[\d,]*)\]")
BODY = re.compile(r"\bbody=%?([\w.\-]+)")
BRANCHES = re.compile(r"\bbranch_computations=\{([^}]*)\}")
CALLED = re.compile(r"\b(?:to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)")
TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')

# devices that exchange with each other: {{0,1},{2,3}}; [2,4]<=[8], or [4,2]<=[2,4]T(1,0): counted through, transposed
# and cut; mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'a'}: those along some axes of a mesh of XLA's own
LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
COUNTED = re.compile(
    r"replica_groups=\[(?P<shape>[\d,]+)\]<=\[(?P<dims>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?"
)
NAMED = re.compile(
    r"replica_groups=mesh\[(?P<sizes>[^\]]*)\]"
    r"(?:, device_ids=\(\[(?P<dims>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?\))? \{(?P<axes>[^}]*)\}"
)
PAIRS = re.compile(r"source_target_pairs=\{(\{[\d,{}]*\})\}")
SIZE = re.compile(r"'(\w+)'=(\d+)")
AXIS = re.compile(r"'(\w+)'(?::\((\d+)\)(\d+))?")  # 'a', or the part of it 'a':(before)size


@dataclass(frozen=True)
class Instruction:
    """What a line does: the type of its result, its operation, and what follows, operands and attributes."""

    result: str
    opcode: str
    rest: str

    @property
    def operands(self) -> int:
        """How many there are."""
        return self.rest.partition(")")[0].count("%")


def computations(text: str) -> dict[str, list[Instruction]]:
    """Name -> instructions, of every computation of a program; the name of the first to run is ENTRY."""
    found: dict[str, list[Instruction]] = {}
    current: list[Instruction] = []
    for line in text.splitlines():
        if head := COMPUTATION.match(line):
            name = ENTRY if head["entry"] else head["name"]
            current = found.setdefault(name, [])
        elif match := INSTRUCTION.match(line):
            current.append(_instruction(COMMENT.sub("", match["what"])))
    return found


def _instruction(what: str) -> Instruction:
    end = _type_end(what)
    opcode, _, rest = what[end:].strip().partition("(")
    return Instruction(what[:end], opcode, rest)


def _type_end(what: str) -> int:
    """Where the type of a result ends: at a space; of a tuple, "(f32[2], (s32[], u8[4]))", where its bracket closes."""
    level = 0
    for index, letter in enumerate(what):
        level += {"(": 1, ")": -1}.get(letter, 0)
        if level == 0 and letter in ") ":
            return index + (letter == ")")
    return len(what)


def called(instruction: Instruction) -> Iterator[tuple[str, int]]:
    """The computations that an instruction runs, and how often. A loop's condition and what a reduction adds up with
    exchange nothing."""
    rest = instruction.rest
    if instruction.opcode == "while":
        trips = TRIPS.search(rest)
        for name in BODY.findall(rest):
            yield name, int(trips[1]) if trips else 1
    elif instruction.opcode in ("call", "conditional", "async-start"):
        branches = BRANCHES.search(rest)
        listed = branches[1].split(",") if branches else []
        for name in [*listed, *CALLED.findall(rest)]:
            yield name.strip(" %"), 1


def arrays(result: str) -> list[tuple[str, int]]:
    """The dtype and the bytes of each array of a type."""
    return [(match["dtype"], _bytes(match)) for match in ARRAY.finditer(result)]


def _bytes(match: re.Match[str]) -> int:
    width = max(int(match["bits"] or 8), 8)  # a truth value takes a byte
    return math.prod(_numbers(match["shape"])) * width // 8


def groups(rest: str, devices: int) -> list[list[int]]:
    """Devices that exchange with each other: the first of several groups, which are alike, or all pairs of a
    permutation."""
    if found := LISTED.search(rest):
        return [_numbers(found[1])]
    if found := COUNTED.search(rest):
        numbers = _counted(_numbers(found["dims"]), _numbers(found["order"]))
        return [numbers.reshape(_numbers(found["shape"]))[0].tolist()]
    if found := NAMED.search(rest):
        return [_along_axes(found)]
    if found := PAIRS.search(rest):
        return [_numbers(pair) for pair in re.findall(r"\{([\d,]+)\}", found[1])]
    return [list(range(devices))]  # no groups: all of them


def _along_axes(found: re.Match[str]) -> list[int]:
    """The first device of a named mesh and those that it exchanges with."""
    sizes = {name: int(size) for name, size in SIZE.findall(found["sizes"])}
    shape = list(sizes.values())
    dims = _numbers(found["dims"]) or shape
    numbers = _counted(dims, _numbers(found["order"])).reshape(shape)
    # of an axis all places, of a part of one so many, as far apart as what is left of it is long
    places = {name: [0] for name in sizes}
    for name, before, size in AXIS.findall(found["axes"]):
        count = int(size or sizes[name])
        apart = sizes[name] // (int(before or 1) * count)
        places[name] = [apart * index for index in range(count)]
    return numbers[np.ix_(*places.values())].flatten().tolist()


def _counted(dims: list[int], order: list[int]) -> np.ndarray:
    """Devices counted through as an array of these dimensions, which is then transposed."""
    numbers = np.arange(math.prod(dims)).reshape(dims)
    return numbers.transpose(order or range(len(dims)))


def _numbers(text: str | None) -> list[int]:
    return [int(number) for number in (text or "").split(",") if number]
