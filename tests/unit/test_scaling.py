"""What is predicted of more machines: the formula, on figures that can be counted by hand."""

from __future__ import annotations

import pytest

from benchmarks.compiled.program import Kernel, Operation, computations, kernels
from benchmarks.meshes import scaling

DEPTH = 10
MESH = {"data": 8, "fsdp": 8, "tensor": 1, "devices": 64, "depth": DEPTH}
COMPUTES = {"forward": 20.0, "backward": 40.0, "outside": 5.0}  # ms: a block's are 2 and 4


def exchange(kind: str, axis: str, size: float, *, count: int = DEPTH, trips: int = DEPTH) -> dict:
    return {"kind": kind, "axes": [axis], "bytes": size, "count": count, "trips": trips}


def row(*collectives: dict, behind_ms: float = 0.0) -> dict:
    """A program whose exchanges all run beside kernels of so many milliseconds."""
    scheduled = [each | {"behind_ms": behind_ms} for each in collectives]
    return MESH | {
        "collectives": list(collectives),
        "computing_ms": COMPUTES,
        "scheduled": scheduled,
    }


def test_a_ring_sends_what_nccl_says():
    """github.com/NVIDIA/nccl-tests, doc/PERFORMANCE.md: (n - 1) / n of the array, twice for an all-reduce."""
    gathered = exchange("all-gather", "fsdp", 8e6, count=1)
    summed = exchange("all-reduce", "data", 8e6, count=1)
    assert scaling.sent(gathered, MESH) == pytest.approx(7e6)
    assert scaling.sent(summed, MESH) == pytest.approx(14e6)
    # each by its own wire
    assert scaling.seconds(gathered, MESH) == pytest.approx(7e6 / scaling.NVLINK)
    assert scaling.seconds(summed, MESH) == pytest.approx(14e6 / scaling.NETWORK)


def test_what_is_shorter_than_a_block_is_seen_once_a_pass():
    # gathered twice in a step, 1 ms each; scattered once, 1 ms
    size = scaling.NVLINK * 1e-3 * 8 / 7
    gathers = exchange("all-gather", "fsdp", size, count=2 * DEPTH)
    scatters = exchange("reduce-scatter", "fsdp", size)
    found = scaling.predicted(row(gathers, scatters, behind_ms=0.25))
    assert found.computing == 65
    assert found.exchanging == pytest.approx(3 * DEPTH)
    # the first gather, and the last gather and scatter of the backward pass
    assert found.exposed == pytest.approx(3)
    assert found.hidden == pytest.approx(65 / 68)
    # a quarter of each is behind what the program computes beside it
    assert found.scheduled == pytest.approx(3 * DEPTH * 0.75)
    assert found.as_scheduled == pytest.approx(65 / (65 + 22.5))
    assert found.one_by_one == pytest.approx(65 / 95)


def test_what_is_longer_than_a_block_is_seen_in_each():
    # 6 ms in a block's backward pass of 4, between machines
    size = scaling.NETWORK * 6e-3 * 8 / 14
    found = scaling.predicted(row(exchange("all-reduce", "data", size)))
    assert found.exposed == pytest.approx(6 + 2 * (DEPTH - 1))
    assert (found.inside, found.outside) == (0, pytest.approx(60e-3 * scaling.NETWORK))


def test_what_is_exchanged_outside_of_blocks_is_seen_whole():
    size = scaling.NETWORK * 6e-3 * 8 / 14
    outer = exchange("all-reduce", "data", size, count=1, trips=1)
    assert scaling.predicted(row(outer)).exposed == pytest.approx(6)


def test_the_two_loops_over_blocks_are_the_two_passes():
    def kernel(trips: int, size: float) -> Kernel:
        operation = Operation("x", "fusion", "f32[2]", (), "")
        return Kernel("fusion", operation, trips, trips, size, 0.0, ())

    # a copy of 3 GB is a millisecond
    program = [kernel(1, 3e9), kernel(DEPTH, 6e9), kernel(1, 3e9), kernel(DEPTH, 9e9)]
    found = scaling.computing(program, DEPTH, tokens=257)
    assert found == {"outside": 2.0, "forward": 20.0, "backward": 30.0}


PROGRAM = """
ENTRY %main (p: f32[750000000]) -> f32[750000000] {
  %p = f32[750000000] parameter(0)
  %early = f32[8] all-reduce-start(%p), replica_groups={{0,1}}
  %copy = f32[750000000] copy(%p)
  %late = f32[8] all-reduce-start(%p), replica_groups={{0,1}}
  %second = f32[8] all-reduce-done(%late)
  ROOT %first = f32[8] all-reduce-done(%early)
}
"""


def test_an_exchange_hides_behind_what_runs_until_it_is_waited_for():
    program = computations(PROGRAM)
    found = scaling.behind(program, kernels(PROGRAM), tokens=257)
    # 3 GB are read and written
    assert found == {"early": pytest.approx(2.0), "late": 0.0}


def test_weights_hide_from_as_many_tokens_as_the_wire_is_slower():
    """A weight is two bytes to gather, and two operations a token."""
    weights, tokens = 1e6, scaling.hides_from(scaling.NVLINK)
    computing = 2 * weights * tokens / scaling.roofline.FLOPS
    assert computing == pytest.approx(2 * weights / scaling.NVLINK)
