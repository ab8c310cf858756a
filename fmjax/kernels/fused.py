"""Attention whose two passes are kernels for CUDA: what is kept between them, and what computes it elsewhere."""

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
from fmjax.sharding import BATCH_AXES, by_device

Arrays = tuple[Array, ...]
HEADS = PartitionSpec(BATCH_AXES, "tensor")  # where the heads of images lie


def fused(
    values: Callable[..., Sequence[Array]],
    gradients: Callable[..., Arrays],
    mesh: Mesh | None = None,
) -> Callable[[Array, Array, Array], Array]:
    """softmax(q k / sqrt(K)) v by kernels; on other devices than CUDA's it is `xla.attend`.

    values: of q, k and v the attention [B N L K], and if it is `trained` what `gradients` takes of each row's sum
    [B N L] too. gradients: of q, k and v, given these, both values, and the gradient behind the attention.
    mesh: over which a kernel that XLA cannot divide is divided; None: it is in programs of one device, or XLA can.
    """
    here = partial(by_device, mesh=mesh, given=HEADS, found=HEADS)

    def inferred(q: Array, k: Array, v: Array) -> Array:
        return values(q, k, v, trained=False)[0]

    def trained(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
        y, lse = values(q, k, v, trained=True)
        return y, lse

    @jax.custom_vjp
    def attend(
        q: Float[Array, "B N L K"], k: Float[Array, "B N S K"], v: Float[Array, "B N S K"]
    ) -> Float[Array, "B N L K"]:
        return here(partial(_on_cuda, inferred, xla.attend), q, k, v)

    def forward(q: Array, k: Array, v: Array) -> tuple[Array, Arrays]:
        y, lse = here(partial(_on_cuda, trained, _plain), q, k, v)
        # both by a name, or what keeps one of them (`stack.run_stack`) still computes the kernel twice for the other
        y, lse = checkpoint_name(y, xla.KEPT[0]), checkpoint_name(lse, xla.KEPT[1])
        return y, (q, k, v, y, lse)

    def backward(kept: Arrays, gradient: Array) -> Arrays:
        return here(partial(_on_cuda, gradients, _plain_gradients), *kept, gradient)

    attend.defvjp(forward, backward)
    return attend


def _on_cuda(kernel: Any, plain: Any, *given: Array) -> Any:
    return jax.lax.platform_dependent(*given, cuda=kernel, default=plain)


def _plain(q: Array, k: Array, v: Array) -> tuple[Array, Array]:
    # its gradients are computed from q, k and v alone
    return xla.attend(q, k, v), jnp.zeros(q.shape[:-1], jnp.float32)


def _plain_gradients(q: Array, k: Array, v: Array, y: Array, lse: Array, gradient: Array) -> Arrays:
    return jax.vjp(xla.attend, q, k, v)[1](gradient)


def swapped(x: Array) -> Array:
    """B N L K <-> B L N K, as the products that make q, k and v lie in memory: nothing is moved."""
    return jnp.swapaxes(x, 1, 2)
