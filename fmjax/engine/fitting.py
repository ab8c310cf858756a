"""Into how few parts a batch can go so that its step fits the devices, by the compiler's account of memory."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import jax
from jax.sharding import Mesh

from fmjax.engine import hosts
from fmjax.engine.ahead import compiled_ahead
from fmjax.engine.costs import Memory
from fmjax.engine.plan import Plan
from fmjax.errors import UsageError, amount, in_gib
from fmjax.sharding import batch_divisor

GIB = 2**30
# The compiler counts neither the work space of libraries (about 1 GiB on an 80 GB card) nor the next batch, which is
# sent while a step runs; and what is free is not always in one piece.
USABLE = 0.95


@dataclass(frozen=True)
class Fit:
    """What was found: the parts, and what each number of them that was tried takes of a device."""

    parts: int
    limit: int  # bytes
    tried: dict[int, Memory]

    def words(self, plan: Plan, mesh: Mesh) -> str:
        """A line that says what was chosen, and why."""
        size, parts = plan.batch_size // self.parts, amount(self.parts, "part")
        each, takes = size // batch_divisor(mesh), in_gib(self.tried[self.parts].total)
        chosen = (
            f"batch   {plan.batch_size} images in {parts} of {size}, {each} a device: "
            f"{takes} of {in_gib(self.limit)}"
        )
        # the next fewer parts that were tried, which did not fit
        fewer = [parts for parts in self.tried if parts < self.parts]
        if not fewer:
            return chosen
        next_fewer = max(fewer)
        would = in_gib(self.tried[next_fewer].total)
        return f"{chosen}; {amount(next_fewer, 'part')} would take {would}"


def device_bytes(mesh: Mesh, gib: float) -> int | None:
    """What programs may take of a device: as given (in GiB), else as the device says, else None."""
    if gib:
        return round(gib * GIB)
    here = next(each for each in mesh.devices.flat if each.process_index == jax.process_index())
    return (here.memory_stats() or {}).get("bytes_limit")


def limit_of(mesh: Mesh, gib: float) -> int:
    """The bytes that a step may take. Raises UsageError where neither the device nor the user says it."""
    found = device_bytes(mesh, gib)
    if found is None:
        platform = mesh.devices.flat[0].platform
        raise UsageError(
            f"--batch auto needs to know a device's memory, which a {platform} does not tell; pass --memory-gib"
        )
    # all processes have to choose alike: the smallest device of all counts
    return usable(min(hosts.exchanged(found)))


def usable(allotted: int) -> int:
    """Of the bytes that programs may have of a device, those that a step may take."""
    return int(USABLE * allotted)


def first_fitting(choices: Sequence[int], takes: Callable[[int], Memory], limit: int) -> int | None:
    """The first choice that takes at most `limit` bytes of a device, each taking no more than the one before it; None
    where none does."""

    def fits(choice: int) -> bool:
        return takes(choice).total <= limit

    # the first one mostly fits, and each that is tried is a compilation
    if fits(choices[0]):
        return choices[0]
    found = bisect_left(choices, True, lo=1, key=fits)
    return None if found == len(choices) else choices[found]


def fit(plan: Plan, mesh: Mesh, limit: int) -> Fit:
    """The fewest parts, from the plan's own on, whose step takes at most `limit` bytes of a device.

    Each number that is tried is a compilation. Raises UsageError where one image a device does not fit, with what
    would.
    """
    tried: dict[int, Memory] = {}

    def takes(parts: int) -> Memory:
        if parts not in tried:
            tried[parts] = compiled_ahead(replace(plan, accumulate=parts), mesh).memory
        return tried[parts]

    # smaller parts take less
    choices = choices_of(plan, mesh)
    found = first_fitting(choices, takes, limit)
    if found is None:
        raise UsageError(_too_large(plan, mesh, tried[choices[-1]], limit))
    return Fit(found, limit, tried)


def choices_of(plan: Plan, mesh: Mesh) -> list[int]:
    """Numbers of parts that divide the batch over the devices: the plan's own, doubled again and again, and as many as
    a device has images. One where the task needs the whole batch at once."""
    each = plan.batch_size // batch_divisor(mesh)
    if not plan.task.separable:
        return [1]
    first = plan.accumulate if each % plan.accumulate == 0 else 1
    doubled = [first * 2**power for power in range(each.bit_length())]
    return sorted({*filter(lambda parts: each % parts == 0, doubled), each})


def _too_large(plan: Plan, mesh: Mesh, memory: Memory, limit: int) -> str:
    """Why not even the smallest part fits, and what would."""
    few = "one image" if plan.task.separable else "a batch that cannot be split"
    takes = f"takes {in_gib(memory.total)}, and {in_gib(limit)} of it may be used"
    why = f"--batch auto: {few} a device {takes}"
    # of one image the state is the larger part: it is split over as many devices as leave room for the rest
    room = limit - memory.temporaries - memory.results
    times = -(-memory.arguments // room) if room > 0 else 1
    if times > 1:
        # a power of two, which divides every width
        fsdp = mesh.shape["fsdp"] * 2 ** (times - 1).bit_length()
        return f"{why}; set --mesh.fsdp {fsdp}, over as many devices"
    if plan.net["backbone"].remat != "full":
        return f"{why}; set --remat full, and --mesh.fsdp over more devices"
    return f"{why}; set --mesh.fsdp and --mesh.tensor over more devices, or take smaller images"
