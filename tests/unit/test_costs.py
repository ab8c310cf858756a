"""What is read from a compiled program: which devices exchange what, how often, and of which size."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import PartitionSpec as P

from fmjax.engine.costs import Collective, collectives, memory_of
from fmjax.sharding import make_mesh

SIZES = (2, 2, 2)
MESH = {"data": 2, "fsdp": 2, "tensor": 2}


def compiled(function, *, takes: P, gives: P, shape=(8, 16)):
    """A function of one device's part, for eight of them."""
    mesh = make_mesh(*SIZES)
    mapped = jax.jit(
        jax.shard_map(function, mesh=mesh, in_specs=takes, out_specs=gives, check_vma=False)
    )
    return mapped.lower(jax.ShapeDtypeStruct(shape, jnp.float32)).compile()


def found(function, **places) -> list[Collective]:
    return collectives(compiled(function, **places).as_text(), MESH)


@pytest.mark.parametrize("axes", [("data",), ("fsdp",), ("tensor",), ("data", "fsdp")])
def test_an_all_reduce_is_told_with_its_axes_and_bytes(axes):
    rows = found(lambda x: lax.psum(x, axes), takes=P(None), gives=P(None))
    assert rows == [Collective("all-reduce", "f32", axes, 8 * 16 * 4, 1, 1)]


@pytest.mark.parametrize("axis", ["data", "fsdp", "tensor"])
def test_a_gather_is_told_with_what_it_makes(axis):
    rows = found(lambda x: lax.all_gather(x, axis, tiled=True), takes=P(axis), gives=P(None))
    assert rows == [Collective("all-gather", "f32", (axis,), 8 * 16 * 4, 1, 1)]


def test_an_exchange_in_a_loop_counts_as_often_as_the_loop_runs():
    def inner(x, _):
        return lax.psum(x * 2, "fsdp"), None

    def outer(x, _):
        return lax.psum(lax.scan(inner, x, length=5)[0], "data"), None

    rows = found(lambda x: lax.scan(outer, x, length=3)[0], takes=P(None), gives=P(None))
    assert {(row.axes, row.trips, row.count) for row in rows} == {
        (("fsdp",), 15, 15),
        (("data",), 3, 3),
    }


def test_a_permutation_and_a_transposition_are_told():
    pairs = [(0, 1), (1, 0)]
    rows = found(lambda x: lax.ppermute(x, "tensor", pairs), takes=P(None), gives=P(None))
    assert [(row.kind, row.axes) for row in rows] == [("collective-permute", ("tensor",))]
    rows = found(
        lambda x: lax.all_to_all(x, "fsdp", 1, 0, tiled=True),
        takes=P("fsdp"),
        gives=P(None, "fsdp"),
    )
    assert [(row.kind, row.axes) for row in rows] == [("all-to-all", ("fsdp",))]


def test_a_program_of_one_device_exchanges_nothing():
    program = jax.jit(lambda x: x @ x.T).lower(jnp.ones((8, 8))).compile()
    assert collectives(program.as_text(), {"data": 1, "fsdp": 1, "tensor": 1}) == []


# as XLA writes them for a GPU, where what starts returns its operands too, and groups are named by a mesh of its own
GPU = """HloModule step

%body (p: (s32[], bf16[24,96,768])) -> (s32[], bf16[24,96,768]) {
  %gather = ((bf16[1,96,768], bf16[96]), (bf16[4,96,768]{2,1,0}, bf16[384])) all-gather-start(%a, %b), METHOD
  %scatter = ((bf16[768,1000]{1,0}), bf16[192,1000]{1,0}) reduce-scatter-start(%c), METHOD, to_apply=%add
  %sum = f32[3072]{0} all-reduce-start(%d), replica_groups={{0,4},{1,5},{2,6},{3,7}}, to_apply=%add
}

ENTRY %main (p: bf16[24,96,768]) -> bf16[] {
  %alone = f32[8]{0} all-reduce(%d), replica_groups={{0},{1},{2},{3},{4},{5},{6},{7}}, to_apply=%add
  %loop = (s32[], bf16[24,96,768]) while(%t), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"24"}}
  %last = f32[96,10]{1,0} reduce-scatter(%e), replica_groups=[4,2]<=[2,2,2]T(0,2,1), to_apply=%add
}
"""


@pytest.mark.parametrize(
    ("method", "axes", "size"),
    [
        ("replica_groups=mesh['axis_0'=2,'axis_1'=4] {'axis_1'}", ("fsdp", "tensor"), 4),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", ("data", "fsdp"), 4),
        (
            "replica_groups=mesh['axis_0'=4,'axis_1'=2], device_ids=([2,2,2]T(0,2,1)) {'axis_0'}",
            ("data", "tensor"),
            4,
        ),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(1)2}", ("data",), 2),
        ("replica_groups=mesh['axis_0'=8] {'axis_0':(4)2}", ("tensor",), 2),
        ("replica_groups=[2,4]<=[8]", ("fsdp", "tensor"), 4),
    ],
)
def test_a_program_for_gpus_is_read_with_its_async_pairs_and_named_groups(method, axes, size):
    rows = {row.kind: row for row in collectives(GPU.replace("METHOD", method), MESH)}
    gathered = 2 * (4 * 96 * 768 + 384)
    assert rows["all-gather"] == Collective("all-gather", "bf16", axes, gathered, 24, 24)
    assert rows["all-reduce"] == Collective("all-reduce", "f32", ("data",), 4 * 3072, 24, 24)
    scattered = [
        row for row in collectives(GPU.replace("METHOD", method), MESH) if "scatter" in row.kind
    ]
    # the whole array, which a start tells, and which is the result times the devices where it does not
    assert scattered == [
        Collective("reduce-scatter", "bf16", axes, 2 * 768 * 1000, 24, 24),
        Collective("reduce-scatter", "f32", ("fsdp",), 2 * 4 * 96 * 10, 1, 1),
    ]


def test_memory_counts_a_donated_argument_once():
    def double(x):
        return x * 2

    x = jax.ShapeDtypeStruct((1024, 1024), jnp.float32)
    kept = memory_of(jax.jit(double).lower(x).compile())
    donated = memory_of(jax.jit(double, donate_argnums=0).lower(x).compile())
    assert kept.arguments == kept.results == donated.arguments == 4 * 1024**2
    assert donated.results == 0
    assert np.isclose(kept.total - donated.total, 4 * 1024**2)
