"""Stacked blocks, run one after the other: scan, drop path, and what is kept for the backward pass."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import Mesh
from jaxtyping import Array, Float

from fmjax.kernels import xla
from fmjax.kernels.attention import PLAIN
from fmjax.kernels.norm import Fork
from fmjax.models.kernels import Kernels
from fmjax.models.layers import Asking, Block, Norm, drop_path, every
from fmjax.models.linear import PRODUCT, Tokens
from fmjax.models.subset import added, drawn, taken
from fmjax.sharding import alone, batch_divisor, first_device, over_batch, split

# what a block keeps for its backward pass: everything; its products, with what a kernel of attention gives; its input
Kept = Literal["none", "dots", "full"]
Remat = Literal["auto"] | Kept  # auto: what is the fastest on every device
Unroll = Literal["auto"] | bool  # auto: by the device
# blocks that are unrolled unasked: each takes a GPU's compiler 0.3 to 0.8 s. On an H200
# ViT-L/14 (24 blocks) is compiled in 6.8 s (scanned in 3.5), DINOv2-g (40) in 15.8, EVA02-L at 336 (24, SwiGLU) in 20
MOST_UNROLLED = 48
# Paths in a backbone of what is most of it. These are rounded to the computation's numbers before every product anyway,
# which norms, tokens and tables of positions are not
KERNELS = re.compile(r"blocks\..*\.kernel")


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


# Within a program it is part of that. Called by itself, it is one that is found again: a loop over functions that are
# made anew would be compiled in every call
@partial(
    jax.jit,
    static_argnames=("kernels", "remat", "unroll", "mesh", "few", "training", "subset"),
    inline=True,
)
def run_stack(
    blocks: Block,
    x: Float[Array, "B L D"],
    *,
    rope: Float[Array, "2 L K"] | None,
    rates: Float[Array, " N"],
    keys: Array | None,
    kernels: Kernels,
    remat: Remat,
    unroll: Unroll,
    mesh: Mesh | None,
    few: int | None = None,
    training: bool = False,
    subset: float = 0.0,
) -> Float[Array, "B T D"]:
    """Tokens after a stack of N blocks.

    rates, keys: of drop path, one for each block; without keys nothing is dropped. subset: with this rate instead, by
    leaving images out of what is computed; 0: not so. kernels: by what they compute.
    remat: what blocks keep for the backward pass. unroll: trace every block instead of scanning over them. mesh: keeps
    activations spread over it. few: the last block gives so many leading tokens; None: all. training: whether there
    will be a gradient, which decides over time alone.
    """
    body: Any = partial(_block, rope=rope, mesh=mesh, subset=subset)
    layers, depth = (blocks, rates, keys), stack_depth(blocks)
    # a branch that is dropped by chance has a bias that is not the same in every image
    kernels = kernels._replace(held=kernels.held and keys is None and not blocks.post_norm)
    given = Tokens(x, _nothing(blocks) if kernels.held else None)
    how, traced = kept(remat), unrolled(unroll, mesh, depth=depth, remat=remat)
    wrapped = partial(_rematerialised, kept=how, scanned=not traced)
    whole = partial(body, kernels=kernels)
    if few is None or (training and not traced and not shortened(mesh, depth=depth)):
        given, _ = jax.lax.scan(wrapped(whole), given, layers, unroll=traced or 1)
        return _asked(given, few, mesh).whole

    if traced or training:
        leading = jax.tree.map(lambda leaf: leaf[:-1], layers)
        given, _ = jax.lax.scan(wrapped(whole), given, leading, unroll=traced or 1)
    else:
        # a slice of a stack is a copy of it, unless blocks are traced one by one. Here nothing is copied; a gradient
        # would be summed up in a stack that older versions of jax go through in every block
        indexed = wrapped(lambda given, index: whole(given, _layer(layers, index)))
        given, _ = jax.lax.scan(indexed, given, jnp.arange(depth - 1))
    # few queries: no kernel is faster than a product of that size
    kernels = kernels._replace(attention=PLAIN)
    last = partial(body, kernels=kernels, asking=lambda x: over_batch(x[:, :few], mesh))
    found, _ = _rematerialised(last, how, scanned=False)(given, _layer(layers, depth - 1))
    return found.whole


def _nothing(blocks: Block) -> Float[Array, " D"] | None:
    """Zeros, as no block has added anything yet; None where they have no biases."""
    scales = blocks.norm1.scale
    return None if blocks.mlp.down.bias is None else jnp.zeros(scales.shape[1:], jnp.float32)


def _asked(given: Tokens, few: int | None, mesh: Mesh | None) -> Tokens:
    """So many leading tokens; None: all."""
    return given if few is None else given._replace(x=over_batch(given.x[:, :few], mesh))


def _block(
    given: Tokens,
    layer: tuple[Block, Array, Array | None],
    *,
    rope: Float[Array, "2 L K"] | None,
    kernels: Kernels,
    mesh: Mesh | None,
    subset: float,
    asking: Asking = every,
) -> tuple[Tokens, None]:
    """Tokens after one block, all or those that ask; the two residual branches are dropped independently of each
    other."""
    block, rate, key = layer
    first, second = (None, None) if key is None else jax.random.split(key)
    fork = None if block.post_norm else kernels.fork
    joined = kernels.joined and key is None
    half = partial(_half, rate=rate, fork=fork, mesh=mesh, subset=subset, joined=joined)

    def attention(x: Array, seen: Array | None) -> Tokens:
        return block.attention_branch(x, rope, kernels, seen, asking)

    def mlp(x: Array, seen: Array | None) -> Tokens:
        return block.mlp_branch(x, kernels, seen)

    # the MLP's backward pass asks for the sum, and nothing for what its last product gives, unless more is behind that
    saved = joined and block.attention_ends(given.x.shape[:-1], kernels)
    given = half(given, attention, block.norm1, key=first, asking=asking, saved=saved)
    return half(given, mlp, block.norm2, key=second), None


def _half(
    given: Tokens,
    branch: Callable[[Array, Array | None], Tokens],
    norm: Norm,
    *,
    rate: Array,
    key: Array | None,
    fork: Fork | None,
    mesh: Mesh | None,
    subset: float,
    joined: bool,
    asking: Asking = every,
    saved: bool = False,
) -> Tokens:
    """Tokens after one residual branch of a block. joined, saved: see `_sum`."""
    # a branch sees its input by a constraint of its own: on the way back the parts that q, k and v have in its
    # gradient are added up before the devices of a tensor axis exchange their sum
    x = over_batch(given.x, mesh)
    if key is None or not subset:
        x, seen = _parted(norm, given._replace(x=x), fork)
        y, constant = branch(over_batch(x, mesh), seen)
        y = drop_path(y, rate, key)
        total = _sum(asking(x), y, mesh, saved=saved) if joined else asking(x) + y
        return Tokens(total, constant)

    places = drawn(key, x.shape[0], subset, groups=batch_divisor(mesh))
    some, seen = _parted(norm, Tokens(over_batch(taken(x, places), mesh)), fork)
    return Tokens(added(asking(x), branch(over_batch(some, mesh), seen).whole, places))


def _sum(
    x: Float[Array, "B T D"], y: Float[Array, "B T D"], mesh: Mesh | None, *, saved: bool
) -> Float[Array, "B T D"]:
    """x + y, which XLA computes as it ends the product that y is. saved: among what blocks keep of products."""
    # Of three axes it would copy x, to write over the copy. And y comes first: of a sum's products XLA takes the first
    # alone, which x may be, too
    rows = (-1, x.shape[-1])
    total = y.reshape(rows) + over_batch(x.reshape(rows), mesh)
    total = checkpoint_name(total, PRODUCT) if saved else total
    return over_batch(total, mesh).reshape(x.shape)


def _layer(layers: Any, index: Array | int) -> Any:
    """One of stacked layers, and what belongs to it."""
    return jax.tree.map(lambda leaf: leaf[index], layers)


def _parted(norm: Norm, given: Tokens, fork: Fork | None) -> tuple[Array, Array | None]:
    """The residual, and normalised what a branch computes with; None where the branch does that itself."""
    return (given.x, None) if fork is None else norm.forked(given.x, fork, given.constant)


def unrolled(unroll: Unroll, mesh: Mesh | None, *, depth: int, remat: Remat) -> bool:
    """Whether so many blocks are traced one by one, where it is left to the device, the first of a mesh."""
    if unroll != "auto":
        return unroll
    # who splits parameters and computes blocks again has little memory: what a loop keeps is little too, and it holds
    # the parameters of one block at a time (DINOv3's 7 billion on 8 devices: 19.0 GiB, unrolled 22.7)
    if split(mesh) and kept(remat) == "full":
        return False
    # a loop zero-fills, slices and writes what its rounds keep, which takes an accelerator a sixth of a step, and a
    # CPU no time beside its products
    return depth <= MOST_UNROLLED and first_device(mesh).platform != "cpu"


def shortened(mesh: Mesh | None, *, depth: int) -> bool:
    """Whether a scan that has a gradient leaves out the last of so many blocks, where that computes few tokens.

    Its slices copy the parameters of all others (of EVA02-E 16 GiB). On one accelerator blocks are scanned to take less
    memory, and of very many the last one is no share of a step.
    """
    if alone(mesh) and first_device(mesh).platform != "cpu":
        return False
    return depth <= MOST_UNROLLED


def kept(remat: Remat) -> Kept:
    """What blocks keep, where it is left to this function too."""
    # writing all of it and reading it again takes longer than computing again what is no product, on a CPU too: there
    # a step of ViT-S/16 takes 0.9 of the time and 0.44 of the memory
    return "dots" if remat == "auto" else remat


def _rematerialised(body: Callable[..., Any], kept: Kept, *, scanned: bool) -> Callable[..., Any]:
    if kept == "none":
        return body
    policies = jax.checkpoint_policies
    saved = None
    if kept == "dots":
        # XLA's attention of all heads at once has nothing by these names: its products are computed again
        saved = policies.save_only_these_names(PRODUCT, *xla.KEPT)
    # a loop computes nothing once for both passes, and has nothing to prevent. Of unrolled blocks XLA finds what is
    # computed twice and keeps it: that is faster (ViT-B/16 on an H100 27.3 ms and not 29.1) and wanted but where
    # memory is what counts
    prevented = kept == "full" and not scanned
    return jax.checkpoint(body, policy=saved, prevent_cse=prevented)
