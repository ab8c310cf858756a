"""A function that is one kernel each way where a program is made for CUDA, and XLA's own elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from fmjax.sharding import BATCH_AXES, by_device, of_batch

Computed = Callable[..., Any]  # of a form, which is no array, and trees of arrays
VECTORS = PartitionSpec("tensor")  # where numbers of the hidden units lie


@cache
def on_cuda(
    values: Computed, gradients: Computed, plain: Computed, mesh: Mesh | None = None
) -> Computed:
    """`plain` of a form, and of hidden units [... F] and vectors [F], trees that are all that is kept of it.

    values: the same by a kernel. gradients: of both trees, those of vectors in float32, by a kernel that is given the
    gradient behind them. mesh: over whose devices the kernels are divided.
    """

    # made once of the same four (`cache`): what was traced of it is found again
    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def computed(form: Any, units: Any, vectors: Any) -> Any:
        def here(units: Any, vectors: Any) -> Any:
            kernel, default = partial(values, form), partial(plain, form)
            return jax.lax.platform_dependent(units, vectors, cuda=kernel, default=default)

        lie = _units(units)
        return by_device(here, units, vectors, mesh=mesh, given=(lie, VECTORS), found=lie)

    def forward(form: Any, units: Any, vectors: Any) -> Any:
        return computed(form, units, vectors), (units, vectors)

    def backward(form: Any, kept: Any, gradient: Any) -> Any:
        def by_xla(units: Any, vectors: Any, gradient: Any) -> Any:
            of_units, sums = jax.vjp(partial(plain, form), units, vectors)[1](gradient)
            return of_units, jax.tree.map(lambda x: x.astype(jnp.float32), sums)

        def here(units: Any, vectors: Any, gradient: Any) -> Any:
            given, kernel = (units, vectors, gradient), partial(gradients, form)
            of_units, sums = jax.lax.platform_dependent(*given, cuda=kernel, default=by_xla)
            return of_units, summed(sums, vectors, mesh)

        lie = _units(gradient)
        places = {"given": (lie, VECTORS, lie), "found": (lie, VECTORS)}
        return by_device(here, *kept, gradient, mesh=mesh, **places)

    computed.defvjp(forward, backward)
    return computed


def summed(sums: Any, learned: Any, mesh: Mesh | None) -> Any:
    """In a function by device: the gradients of what is learned, out of sums over a device's own images in float32."""
    totals = of_batch(sums, mesh)
    return jax.tree.map(lambda total, known: total.astype(known.dtype), totals, learned)


def _units(arrays: Any) -> PartitionSpec:
    """Where hidden units of the tokens of a batch lie."""
    between = jax.tree.leaves(arrays)[0].ndim - 2
    return PartitionSpec(BATCH_AXES, *(None,) * between, "tensor")
