"""Attention of few tokens, whose scores never leave the chip: kernels in Pallas for Triton (arXiv:2205.14135).

A class token makes one token more than full tiles hold, and cuDNN's kernels compute a whole tile for it: 257 tokens
take as long as if there were twice as many scores. Here what is left over has a tile of its own, of 16 and more.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.sharding import Mesh
from jaxtyping import Array

from fmjax.kernels.fused import Arrays, fused, swapped

LOG2_E = math.log2(math.e)
LEAST = 16  # rows and columns of the smallest product that matrix units take
NEVER = -1e30  # a score whose exponential is 0


class Tiles(NamedTuple):
    """How a program goes over tokens: it holds some, and goes over all others in turns of so many."""

    held: int
    turn: int
    stages: int  # turns whose loads are under way at once


# By the widest head. Of those tried on an H200 (of 64: 23 forward, 31 backward; of 128: 7 and 8) these are the fastest
FORWARD = {128: Tiles(64, 32, 3)}
BACKWARD = {64: Tiles(128, 32, 3), 128: Tiles(64, 64, 2)}
WARPS = 4  # eight take up to twice as long


class Heads(NamedTuple):
    """What both kernels know of their arrays while they are traced."""

    images: int
    heads: int
    queries: int
    keys: int
    width: int
    interpret: bool = False  # computed by XLA, step by step, on any device

    @property
    def block(self) -> int:
        """Columns that a program holds of a head: Triton's arrays have powers of two."""
        return max(LEAST, pl.next_power_of_2(self.width))

    @property
    def scale(self) -> float:
        return self.width**-0.5


class Span(NamedTuple):
    """Tokens that are read, computed and written together."""

    index: Any  # which of the spans of a head it is
    start: Any
    size: int
    total: int  # tokens of a head
    beyond: bool  # whether some of them are no tokens

    @property
    def rows(self) -> Array:
        return self.start + jnp.arange(self.size)

    @property
    def real(self) -> Array:
        return self.rows < self.total


class Head(NamedTuple):
    """That of a program, and how its tokens are read and written."""

    known: Heads
    number: Any
    image: Any

    def read(self, ref: Any, span: Span) -> Array:
        at, real = self._place(span)
        return _load(ref.at[at], real)

    def write(self, ref: Any, span: Span, numbers: Array) -> None:
        at, real = self._place(span)
        triton.store(ref.at[at], numbers.astype(ref.dtype), mask=real)

    def write_gradient(self, refs: tuple[Any, Any], span: Span, numbers: Array) -> None:
        """Numbers in float32, and to the second of the places, if there is one, their sum over the span."""
        ref, sums_ref = refs
        self.write(ref, span, numbers)
        if sums_ref is None:
            return
        if span.beyond:
            numbers = jnp.where(span.real[:, None], numbers, 0.0)
        column = jnp.arange(self.known.block)
        at = (self.image, span.index, self.number, column)
        real = None if self.known.block == self.known.width else column < self.known.width
        triton.store(sums_ref.at[at], numbers.sum(0), mask=real)

    def read_sums(self, ref: Any, span: Span) -> Array:
        at, real = self._place_of_sums(span)
        return _load(ref.at[at], real)

    def write_sums(self, ref: Any, span: Span, numbers: Array) -> None:
        at, real = self._place_of_sums(span)
        triton.store(ref.at[at], numbers, mask=real)

    def _place(self, span: Span) -> tuple[tuple[Any, ...], Array | None]:
        """Where tokens lie in an array B L N K, and which numbers there are; None: all."""
        width, block = self.known.width, self.known.block
        column = jnp.arange(block)
        at = (self.image, span.rows[:, None], self.number, column[None, :])
        if block == width and not span.beyond:
            return at, None
        return at, span.real[:, None] & (column < width)[None, :]

    def _place_of_sums(self, span: Span) -> tuple[tuple[Any, ...], Array | None]:
        """The same of an array B N L."""
        at = (self.image, self.number, span.rows)
        return at, span.real if span.beyond else None


@cache
def over(mesh: Mesh | None) -> Callable[..., Array]:
    """softmax(q k / sqrt(K)) v of q, k and v [B N L K] in bfloat16 or float16, in a program for a mesh: each device
    computes its own heads of its own images. It takes biases too, see `fused`. On other devices than CUDA's it is
    `xla.attend`."""
    return fused(_values, _gradients, mesh)


def _values(q: Array, k: Array, v: Array, *, trained: bool, interpret: bool = False) -> Arrays:
    """The attention [B N L K], and where it is trained the binary logarithms of the sums of exponentials [B N L]."""
    known, tiles = _known(q, k, interpret), _tiles(FORWARD, q)
    given = [swapped(x) for x in (q, k, v)]
    y, lse = _like(given[0]), jax.ShapeDtypeStruct(q.shape[:-1], jnp.float32)
    # without block specs, each program is given whole arrays and takes its tokens itself
    call = pl.pallas_call(
        partial(_attend, known, tiles),
        out_shape=(y, lse) if trained else (y,),
        # programs of a head follow each other, and find its keys and values in the cache
        grid=(_count(known.queries, tiles.held), known.heads, known.images),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=tiles.stages),
        interpret=interpret,
        name="attention",
    )
    y, *sums = call(*given)
    return swapped(y), *sums


def _attend(known: Heads, tiles: Tiles, *refs: Any) -> None:
    """Some queries of a head, beside one tile of keys and values after the other."""
    q_ref, k_ref, v_ref, y_ref, *sums_ref = refs
    head = _head(known)

    def write(queries: Span) -> None:
        q = head.read(q_ref, queries)

        def turn(keys: Span, carry: Arrays) -> Arrays:
            greatest, total, y = carry
            scores = _product(q, head.read(k_ref, keys).T) * (known.scale * LOG2_E)
            if keys.beyond:
                scores = jnp.where(keys.real[None, :], scores, NEVER)
            higher = jnp.maximum(greatest, scores.max(-1))
            weights = jnp.exp2(scores - higher[:, None])
            # what was summed up beside a smaller one
            less = jnp.exp2(greatest - higher)
            v = head.read(v_ref, keys)
            y = y * less[:, None] + _product(weights.astype(v.dtype), v)
            return higher, total * less + weights.sum(-1), y

        none = jnp.zeros(queries.size, jnp.float32)
        start = (none + NEVER, none, jnp.zeros((queries.size, known.block), jnp.float32))
        greatest, total, y = _over(known.keys, tiles.turn, turn, start)
        head.write(y_ref, queries, y / total[:, None])
        for ref in sums_ref:
            head.write_sums(ref, queries, greatest + jnp.log2(total))

    _held(known.queries, tiles.held, pl.program_id(0), write)


def _head(known: Heads) -> Head:
    return Head(known, pl.program_id(1), pl.program_id(2))


def _gradients(
    q: Array,
    k: Array,
    v: Array,
    y: Array,
    lse: Array,
    gradient: Array,
    *,
    biased: bool = False,
    interpret: bool = False,
) -> Arrays:
    """Of q, k and v; biased: and the sums of each over all tokens [N K] in float32. lse: `_values`'s."""
    known, tiles = _known(q, k, interpret), _tiles(BACKWARD, q)
    given = [swapped(x) for x in (q, k, v, y, gradient)]
    of_queries, of_keys = (_count(total, tiles.held) for total in (known.queries, known.keys))
    # each program sums up over the tokens that it holds
    spans = (of_queries, of_keys, of_keys) if biased else ()
    sums = [(known.images, count, known.heads, known.width) for count in spans]
    call = pl.pallas_call(
        partial(_differentiate, known, tiles),
        out_shape=(*map(_like, given[:3]), *(jax.ShapeDtypeStruct(x, jnp.float32) for x in sums)),
        grid=(of_queries + of_keys, known.heads, known.images),
        compiler_params=triton.CompilerParams(num_warps=WARPS, num_stages=tiles.stages),
        interpret=interpret,
        name="attention_gradients",
    )
    found = call(*given, lse)
    return *map(swapped, found[:3]), *(x.sum((0, 1)) for x in found[3:])


def _differentiate(known: Heads, tiles: Tiles, *refs: Any) -> None:
    """The gradient of some queries, or those of some keys and values: scores are computed for each, as nothing that
    programs add up together need be."""
    read, written = refs[:6], refs[6:]
    # of q, of k and of v: the gradient, and where it is asked for its sums
    of_q, *of_kv = zip(written[:3], written[3:] or (None,) * 3, strict=True)
    index, first, head = pl.program_id(0), _count(known.queries, tiles.held), _head(known)

    @pl.when(index < first)
    def _of_queries() -> None:
        write = partial(_differentiate_queries, head, tiles, read, of_q)
        _held(known.queries, tiles.held, index, write)

    @pl.when(index >= first)
    def _of_keys() -> None:
        write = partial(_differentiate_keys, head, tiles, read, of_kv)
        _held(known.keys, tiles.held, index - first, write)


def _differentiate_queries(
    head: Head, tiles: Tiles, refs: tuple[Any, ...], of_q: tuple[Any, Any], queries: Span
) -> None:
    known, (q_ref, k_ref, v_ref, *others) = head.known, refs
    q = head.read(q_ref, queries)
    dy, lse, mean = _behind(head, others, queries)

    def turn(keys: Span, dq: Array) -> Array:
        k = head.read(k_ref, keys)
        weights = jnp.exp2(_product(q, k.T) * (known.scale * LOG2_E) - lse[:, None])
        if keys.beyond:
            weights = jnp.where(keys.real[None, :], weights, 0.0)
        of_weights = _product(dy, head.read(v_ref, keys).T)
        return dq + _product((weights * (of_weights - mean[:, None])).astype(k.dtype), k)

    dq = _over(known.keys, tiles.turn, turn, jnp.zeros((queries.size, known.block), jnp.float32))
    head.write_gradient(of_q, queries, dq * known.scale)


def _differentiate_keys(
    head: Head, tiles: Tiles, refs: tuple[Any, ...], of_kv: list[tuple[Any, Any]], keys: Span
) -> None:
    known, (q_ref, k_ref, v_ref, *others) = head.known, refs
    k, v = head.read(k_ref, keys), head.read(v_ref, keys)

    def turn(queries: Span, carry: Arrays) -> Arrays:
        dk, dv = carry
        q = head.read(q_ref, queries)
        # of what is no query dy is 0, and with it all that is added here
        dy, lse, mean = _behind(head, others, queries)
        # keys before queries: what is multiplied from the left stays where it was computed
        weights = jnp.exp2(_product(k, q.T) * (known.scale * LOG2_E) - lse[None, :])
        dv = dv + _product(weights.astype(dy.dtype), dy)
        of_scores = weights * (_product(v, dy.T) - mean[None, :])
        return dk + _product(of_scores.astype(q.dtype), q), dv

    zeros = (jnp.zeros((keys.size, known.block), jnp.float32),) * 2
    dk, dv = _over(known.queries, tiles.turn, turn, zeros)
    for places, found in zip(of_kv, (dk * known.scale, dv), strict=True):
        head.write_gradient(places, keys, found)


def _behind(head: Head, refs: list[Any], queries: Span) -> Arrays:
    """The gradient behind some queries, the logarithms of their sums, and the mean of their weights' gradients."""
    y_ref, dy_ref, lse_ref = refs
    y, dy = head.read(y_ref, queries), head.read(dy_ref, queries)
    # that mean is the gradient of y along y, which is smaller than weights are
    mean = (y.astype(jnp.float32) * dy.astype(jnp.float32)).sum(-1)
    return dy, head.read_sums(lse_ref, queries), mean


def _tiles(by_width: dict[int, Tiles], q: Array) -> Tiles:
    return next(tiles for widest, tiles in by_width.items() if q.shape[-1] <= widest)


def _known(q: Array, k: Array, interpret: bool) -> Heads:
    images, heads, queries, width = q.shape
    return Heads(images, heads, queries, k.shape[2], width, interpret)


def _like(x: Array) -> Any:
    return jax.ShapeDtypeStruct(x.shape, x.dtype)


def _count(total: int, size: int) -> int:
    """Spans of so many tokens."""
    return pl.cdiv(total, size)


def _parts(total: int, size: int) -> tuple[int, Span | None]:
    """Full spans of so many tokens, and what is left."""
    full, rest = divmod(total, size)
    if not rest:
        return full, None
    left = max(LEAST, pl.next_power_of_2(rest))
    return full, Span(full, full * size, left, total, beyond=left != rest)


def _over(total: int, size: int, turn: Callable[[Span, Any], Any], carry: Any) -> Any:
    """What is carried from span to span over all tokens."""
    full, left = _parts(total, size)

    def one(index: Any, carry: Any) -> Any:
        return turn(Span(index, index * size, size, total, beyond=False), carry)

    if full:
        carry = jax.lax.fori_loop(0, full, one, carry)
    return carry if left is None else turn(left, carry)


def _held(total: int, size: int, index: Any, write: Callable[[Span], None]) -> None:
    """Writes one of the spans."""
    full, left = _parts(total, size)
    # a condition costs a program nothing; one that always holds is none
    if full:
        span = Span(index, index * size, size, total, beyond=False)
        pl.when(index < full)(lambda: write(span))
    if left is not None:
        pl.when(index == full)(lambda: write(left))


def _product(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _load(ref: Any, real: Array | None) -> Array:
    return triton.load(ref, mask=real, other=None if real is None else 0.0)
