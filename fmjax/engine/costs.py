"""What a compiled program costs: memory of a device, by the compiler's own account, and what devices tell each other.

`cost_analysis` counts the body of a loop once, however often it runs, and knows no exchange between devices: these are
read from the program's text, times the trips of the loops around them.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fmjax.engine.hlo import ENTRY, Instruction, arrays, called, computations, groups

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Memory:
    """Bytes of one device while a program runs, by the compiler's account: without the work space of libraries."""

    arguments: int  # the state and the batch
    temporaries: int  # activations, gradients and all else in between
    results: int  # what is given back in memory of its own: a donated state lies where it lay

    @property
    def total(self) -> int:
        return self.arguments + self.temporaries + self.results


@dataclass(frozen=True, order=True)
class Collective:
    """An exchange between devices, on one of them.

    bytes: of the whole array that it makes (all-gather) or takes (reduce-scatter, all-reduce).
    """

    kind: str
    dtypes: str  # "bf16", or "bf16+f32" where arrays travel together
    axes: tuple[str, ...]  # the mesh axes whose devices take part
    bytes: int
    trips: int  # how often the loops around it run
    count: int = 1  # how often it is done, the trips included


def memory_of(program: Any) -> Memory:
    """The memory of a compiled program."""
    found = program.memory_analysis()
    return Memory(
        arguments=found.argument_size_in_bytes,
        temporaries=found.temp_size_in_bytes,
        results=found.output_size_in_bytes - found.alias_size_in_bytes,
    )


def collectives(text: str, mesh: Mapping[str, int]) -> list[Collective]:
    """What devices exchange in a compiled program, the most bytes first.

    text: its HLO. mesh: axis -> size, in the order of the mesh.
    """
    program = computations(text)
    found = Counter(_exchanges(program, ENTRY, 1, mesh))
    # the same exchange at several places of a program is told once
    rows = [replace(row, count=count * row.trips) for row, count in found.items()]
    return sorted(rows, key=lambda row: (-row.bytes * row.count, row))


def _exchanges(
    program: Mapping[str, list[Instruction]], name: str, trips: int, mesh: Mapping[str, int]
) -> Iterator[Collective]:
    """Those of a computation and of all that it runs."""
    for instruction in program.get(name, ()):
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            yield from collective(kind, instruction, trips, mesh)
        for inner, times in called(instruction):
            yield from _exchanges(program, inner, trips * times, mesh)


def collective(
    kind: str, instruction: Instruction, trips: int, mesh: Mapping[str, int]
) -> Iterator[Collective]:
    """One exchange; none where every device is alone."""
    together = groups(instruction.rest, math.prod(mesh.values()))
    axes = _axes(together, mesh)
    if not axes:
        return
    found, operands = arrays(instruction.result), instruction.operands
    # what starts (and is done later) gives its operands and its results: the whole array is in the larger half
    starts = instruction.opcode.endswith("-start") and len(found) >= 2 * operands
    if starts:
        found = max(found[:operands], found[operands : 2 * operands], key=_bytes)
    size = _bytes(found)
    # else the result is told alone, which of a reduce-scatter is a device's part
    if kind == "reduce-scatter" and not starts:
        size *= len(together[0])
    dtypes = "+".join(sorted({dtype for dtype, _ in found}))
    yield Collective(kind, dtypes, axes, size, trips)


def _bytes(found: list[tuple[str, int]]) -> int:
    return sum(size for _, size in found)


def _axes(together: list[list[int]], mesh: Mapping[str, int]) -> tuple[str, ...]:
    """The mesh axes along which devices that exchange differ; devices are counted in the order of the mesh."""
    sizes = list(mesh.values())
    places = [np.stack(np.unravel_index(group, sizes)) for group in together]  # axis, device
    differ = np.any([np.ptp(place, axis=1) > 0 for place in places], axis=0)
    return tuple(axis for axis, found in zip(mesh, differ, strict=True) if found)
