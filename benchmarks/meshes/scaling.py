"""How fast a step must be on more machines: what a device computes, and what of its exchanges that does not hide.

A prediction, by rates that are assumed. Imports no jax.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from benchmarks.compiled import roofline
from benchmarks.compiled.program import EXCHANGES, Computation, Kernel
from benchmarks.meshes.cases import in_loop

# bytes a second that a device sends, and receives as many: among eight by NVLink (of 450e9 that it has), and to other
# machines by its own network card of 400 Gbit/s
NVLINK = 300e9
NETWORK = 50e9
INSIDE = frozenset({"fsdp", "tensor"})  # axes whose devices are of one machine here
MACHINE = 8  # devices, whatever the axis
# times the size of an array that a device sends, n devices taking part: rings
# (github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md, "bus bandwidth")
SENT = {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2}
PASSES: tuple[str, ...] = ("forward", "backward")


@dataclass(frozen=True)
class Scaling:
    """Milliseconds of a step of one device, and bytes that it sends."""

    computing: float
    exchanging: float  # if nothing else were done meanwhile
    exposed: float  # of that, what the block beside it does not hide
    scheduled: float  # of that, what the program does nothing beside
    inside: float  # bytes to devices of its own machine
    outside: float  # and to other machines

    @property
    def hidden(self) -> float:
        """The share of the step that computes, where exchanges hide."""
        return self.computing / (self.computing + self.exposed)

    @property
    def as_scheduled(self) -> float:
        """The same where they hide as the program has them."""
        return self.computing / (self.computing + self.scheduled)

    @property
    def one_by_one(self) -> float:
        """The same where nothing is exchanged and computed at the same time."""
        return self.computing / (self.computing + self.exchanging)


def behind(
    program: Mapping[str, Computation], kernels: Iterable[Kernel], tokens: int
) -> dict[str, float]:
    """Name of an exchange -> the milliseconds that kernels run between its start and where its result is waited for."""
    scores, found = roofline.squares(tokens), {}
    lasts = {x.operation.name: _milliseconds(x, scores) / x.times for x in kernels}
    for computation in program.values():
        passed, started = 0.0, {}
        for name, operation in computation.items():
            opcode, first = operation.opcode, next(iter(operation.operands), "")
            if opcode.endswith("-done") and first in started:
                found[first] = passed - started[first]
            elif opcode.removesuffix("-start") in EXCHANGES:
                started[name] = passed
            passed += lasts.get(name, 0.0)
    return found


def computing(kernels: Iterable[Kernel], depth: int, tokens: int) -> dict[str, float]:
    """Milliseconds of a step of scanned blocks by the roofline: both passes through them, and all else."""
    found = {"outside": 0.0}
    names, scores = iter(PASSES), roofline.squares(tokens)
    # of the loops over blocks the first is the forward pass, the second the backward pass
    for looping, group in groupby(kernels, lambda kernel: in_loop(kernel.trips, depth)):
        name = next(names) if looping else "outside"
        milliseconds = sum(_milliseconds(kernel, scores) for kernel in group)
        found[name] = found.get(name, 0.0) + milliseconds
    return {name: round(value, 3) for name, value in found.items()}


def _milliseconds(kernel: Kernel, scores: frozenset[tuple[int, int]]) -> float:
    kind = roofline.kinds(kernel, scores)
    return 1e3 * kernel.times * roofline.seconds(kernel, kind)


def predicted(row: Mapping[str, Any]) -> Scaling:
    """A row of results -> how its step must go.

    A block's exchanges hide as far as the block beside it computes as long: the weights of the next one are gathered
    meanwhile, and the gradients of the last one summed (jax-ml.github.io/scaling-book, "training"). Of each pass one
    block has none beside it, and what is exchanged outside of blocks waits.
    """
    block, beyond = exchanges(row)
    depth, computes = row["depth"], row["computing_ms"]
    exposed = beyond
    for name in PASSES:
        exchanged = block[name]
        # a block computes as long as its pass through all of them takes, over their number
        exposed += exchanged + (depth - 1) * max(0.0, exchanged - computes.get(name, 0.0) / depth)
    sent = {inside: _sent_by(row, inside=inside) for inside in (True, False)}
    return Scaling(
        computing=sum(computes.values()),
        exchanging=depth * sum(block.values()) + beyond,
        exposed=exposed,
        scheduled=sum(_waited(each, row) for each in row["scheduled"]),
        inside=sent[True],
        outside=sent[False],
    )


def _waited(each: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Milliseconds of a step that an exchange takes longer than what runs beside it."""
    once = 1e3 * seconds(each, row) / each["count"]
    return each["count"] * max(0.0, once - each["behind_ms"])


def exchanges(row: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Milliseconds that a block exchanges in each pass, and those of all else."""
    block, beyond = dict.fromkeys(PASSES, 0.0), 0.0
    for each in row["collectives"]:
        milliseconds = 1e3 * seconds(each, row)
        if not in_loop(each["trips"], row["depth"]):
            beyond += milliseconds
            continue
        milliseconds /= each["trips"]
        # weights are gathered once in each pass; gradients are of the backward pass alone
        shared = each["kind"] == "all-gather"
        block["forward"] += milliseconds / 2 * shared
        block["backward"] += milliseconds - milliseconds / 2 * shared
    return block, beyond


def seconds(each: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """That an exchange takes, as often as a step does it."""
    return sent(each, row) / (NVLINK if _inside(each, row) else NETWORK)


def _inside(each: Mapping[str, Any], row: Mapping[str, Any]) -> bool:
    """Whether devices that exchange are of one machine."""
    return row["devices"] <= MACHINE or INSIDE.issuperset(each["axes"])


def sent(each: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """Bytes that a device sends in an exchange, as often as a step does it."""
    devices = math.prod(row[axis] for axis in each["axes"])
    share = SENT.get(each["kind"], 1) * (devices - 1) / devices
    return share * each["bytes"] * each["count"]


def _sent_by(row: Mapping[str, Any], *, inside: bool) -> float:
    found = row["collectives"]
    return sum(sent(x, row) for x in found if _inside(x, row) is inside)


def hides_from(bandwidth: float) -> float:
    """Tokens of a device from which on its products take longer than to gather their weights, in bfloat16: two
    operations for each weight and token, two bytes for each weight."""
    return roofline.FLOPS / bandwidth


def told(scaling: Scaling) -> Iterator[str]:
    """The cells of a row."""
    yield f"{scaling.computing:.0f}"
    yield f"{scaling.inside / 1e9:.1f}"
    yield f"{scaling.outside / 1e9:.2f}"
    yield f"{scaling.exchanging:.1f}"
    yield f"{scaling.exposed:.1f}, {scaling.scheduled:.1f}"
    yield f"{100 * scaling.hidden:.1f} %"
    yield f"{100 * scaling.as_scheduled:.1f} %"
    yield f"{100 * scaling.one_by_one:.1f} %"
