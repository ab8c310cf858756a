"""Attention whose two passes are kernels for CUDA: what is kept between them, and what computes it elsewhere.

Biases that are in q, k and v have as their gradients the sums of those of all tokens, which a kernel holds while it
computes them. So they may be given beside q, k and v, in which they are constants then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from fmjax.kernels import xla
from fmjax.kernels.platform import VECTORS, summed
from fmjax.sharding import BATCH_AXES, by_device

Arrays = tuple[Array, ...]
Biases = tuple[Array | None, ...]  # of q, k and v, each [N K]; or of none of them
HEADS = PartitionSpec(BATCH_AXES, "tensor")  # where the heads of images lie


def fused(
    values: Callable[..., Sequence[Array]],
    gradients: Callable[..., Arrays],
    mesh: Mesh | None = None,
) -> Callable[..., Array]:
    """softmax(q k / sqrt(K)) v by kernels, a function of q, k, v and, if the kernels give their gradients, of biases
    that are in them; on other devices than CUDA's it is `xla.attend`.

    values: of q, k and v the attention [B N L K], and if it is `trained` what `gradients` takes of each row's sum
    [B N L] too. gradients: of q, k and v, given these, both values, and the gradient behind the attention; `biased`
    theirs over all tokens [N K] in float32 too.
    mesh: over which a kernel that XLA cannot divide is divided; None: it is in programs of one device, or XLA can.
    """

    def inferred(q: Array, k: Array, v: Array) -> Array:
        return values(q, k, v, trained=False)[0]

    def trained(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        y, lse = values(q, k, v, trained=True)
        return y, lse

    def here(function: Any, *arrays: Array) -> Any:
        return by_device(function, *arrays, mesh=mesh, given=HEADS, found=HEADS)

    @jax.custom_vjp
    def attend(
        q: Float[Array, "B N L K"],
        k: Float[Array, "B N S K"],
        v: Float[Array, "B N S K"],
        biases: Biases = (),
    ) -> Float[Array, "B N L K"]:
        return here(partial(_on_cuda, inferred, xla.attend), q, k, v)

    def forward(q: Array, k: Array, v: Array, biases: Biases = ()) -> tuple[Array, Any]:
        y, lse = here(partial(_on_cuda, trained, _plain), q, k, v)
        # both by a name, or what keeps one of them (`stack.run_stack`) still computes the kernel twice for the other
        y, lse = checkpoint_name(y, xla.KEPT[0]), checkpoint_name(lse, xla.KEPT[1])
        return y, ((q, k, v, y, lse), biases)

    def backward(kept: Any, gradient: Array) -> tuple[Any, ...]:
        arrays, biases = kept
        if all(bias is None for bias in biases):
            found = here(partial(_on_cuda, gradients, _plain_gradients), *arrays, gradient)
            return *found, biases
        kernel = partial(gradients, biased=True)

        def with_sums(biases: Biases, *given: Array) -> tuple[Any, ...]:
            of_q, of_k, of_v, *sums = _on_cuda(kernel, _plain_with_sums, *given)
            return of_q, of_k, of_v, summed(tuple(map(_of_known, biases, sums)), biases, mesh)

        places = {"given": (VECTORS, *(HEADS,) * 6), "found": (*(HEADS,) * 3, VECTORS)}
        return by_device(with_sums, biases, *arrays, gradient, mesh=mesh, **places)

    attend.defvjp(forward, backward)
    return attend


def _of_known(bias: Array | None, total: Array) -> Array | None:
    return None if bias is None else total


def _on_cuda(kernel: Any, plain: Any, *given: Array) -> Any:
    return jax.lax.platform_dependent(*given, cuda=kernel, default=plain)


def _plain(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    # its gradients are computed from q, k and v alone
    return xla.attend(q, k, v), jnp.zeros(q.shape[:-1], jnp.float32)


def _plain_gradients(q: Array, k: Array, v: Array, y: Array, lse: Array, gradient: Array) -> Arrays:
    return jax.vjp(xla.attend, q, k, v)[1](gradient)


def _plain_with_sums(*given: Array) -> Arrays:
    found = _plain_gradients(*given)
    return *found, *(x.sum((0, 2), dtype=jnp.float32) for x in found)


def swapped(x: Array) -> Array:
    """B N L K <-> B L N K, as the products that make q, k and v lie in memory: nothing is moved."""
    return jnp.swapaxes(x, 1, 2)
