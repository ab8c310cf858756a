"""The step of a plan compiled from shapes alone: what it takes of a device, before anything is read or made."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
from jax.sharding import Mesh, Sharding

from fmjax.engine.costs import Memory, memory_of
from fmjax.engine.plan import Plan
from fmjax.engine.state import State, begin, places
from fmjax.engine.step import compiled
from fmjax.sharding import batch_sharding
from fmjax.trees import flat, nested


@dataclass(frozen=True)
class Ahead:
    """A compiled step, and the seconds that lowering and compiling took."""

    program: Any  # jax.stages.Compiled
    lowering_s: float
    compiling_s: float

    @property
    def memory(self) -> Memory:
        """What the step takes of each device."""
        return memory_of(self.program)


def compiled_ahead(plan: Plan, mesh: Mesh) -> Ahead:
    """The step of a plan, compiled for the devices of a mesh, which need not be here."""
    start = time.perf_counter()
    state = state_shapes(plan, mesh)
    batch = {name: _placed(x, batch_sharding(mesh)) for name, x in plan.batch.items()}
    lowered = compiled(plan, mesh).step.lower(state, batch)
    lowered_at = time.perf_counter()
    program = lowered.compile()
    return Ahead(program, lowered_at - start, time.perf_counter() - lowered_at)


def state_shapes(plan: Plan, mesh: Mesh) -> State:
    """The state before the first step: shapes, and where they lie."""
    params = nested(flat(plan.net))
    shapes = jax.eval_shape(partial(begin, plan, mesh=mesh), params)
    return jax.tree.map(_placed, shapes, places(plan, mesh))


def _placed(x: Any, place: Sharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)
