"""Stacked blocks, run one after the other: scan, drop path, and what is kept for the backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import jax
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.models.layers import Block, drop_path
from fmjax.sharding import over_batch

# what a block keeps for its backward pass: everything, its products, its input
Remat = Literal["none", "dots", "full"]


def stack_depth(blocks: Block) -> int:
    """How many blocks a stack has: the length of the leading axis of all its parameters."""
    return blocks.norm1.scale.shape[0]


def between(stacks: Iterable[Block], start: int, stop: int) -> Iterator[tuple[Block, slice]]:
    """The parts of consecutive stacks that lie between two depths, each with the depths that it covers."""
    first = 0  # the depth of the first block of this stack
    for stack in stacks:
        last = first + stack_depth(stack)
        low, high = max(start, first), min(stop, last)
        if low < high:
            yield _cut(stack, low - first, high - first), slice(low, high)
        first = last


def _cut(stack: Block, low: int, high: int) -> Block:
    # a whole stack is not sliced: that would be a copy of every parameter
    if high - low == stack_depth(stack):
        return stack
    return jax.tree.map(lambda leaf: leaf[low:high], stack)


def run_stack(
    blocks: Block,
    x: Float[Array, "B L D"],
    *,
    rope: Float[Array, "2 L K"] | None,
    rates: Float[Array, " N"],
    keys: Array | None,
    remat: Remat,
    unroll: bool,
    mesh: Mesh | None,
) -> Float[Array, "B L D"]:
    """Tokens after a stack of N blocks.

    rates, keys: of drop path, one for each block; without keys nothing is dropped. remat: what blocks keep for the
    backward pass. unroll: trace every block instead of scanning over them. mesh: keeps activations spread over it.
    """

    # one block; the two residual branches are dropped independently of each other
    def body(x: Array, layer: tuple[Block, Array, Array | None]) -> tuple[Array, None]:
        block, rate, key = layer
        first, second = (None, None) if key is None else jax.random.split(key)
        # a branch sees its input by a constraint of its own: on the way back the parts that q, k and v have in its
        # gradient are added up before the devices of a tensor axis exchange their sum
        x = over_batch(x, mesh)
        attended = block.attention_branch(over_batch(x, mesh), rope)
        x = over_batch(x + drop_path(attended, rate, first), mesh)
        return x + drop_path(block.mlp_branch(over_batch(x, mesh)), rate, second), None

    layers = (blocks, rates, keys)
    return jax.lax.scan(_rematerialised(body, remat), x, layers, unroll=unroll or 1)[0]


def _rematerialised(body: Callable[..., Any], policy: Remat) -> Callable[..., Any]:
    if policy == "none":
        return body
    saved = None if policy == "full" else jax.checkpoint_policies.dots_with_no_batch_dims_saveable
    # inside a scan nothing can be computed only once for both passes, so nothing has to prevent it
    return jax.checkpoint(body, policy=saved, prevent_cse=False)
