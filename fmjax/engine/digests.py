"""Digests of arrays, computed where the arrays lie: the same for the same numbers on any mesh of any number of hosts.

Storage keeps no promise about content: a flipped bit in a checkpoint's arrays is read back as a number like any other.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from fmjax.trees import flat

# MurmurHash3's last mixing of 32 bits (Appleby, public domain): each step can be undone, so that another number at a
# place always gives another term of the sum
SHIFTS, FACTORS = (16, 13, 16), (0x85EBCA6B, 0xC2B2AE35)
SEEDS = (
    0x9E3779B9,
    0x7F4A7C15,
)  # of the two sums: odd, so that no two places of an array are mixed alike


def digests(tree: Any) -> dict[str, str]:
    """Path -> the digest of its array, 16 hexadecimal digits. Waits until the arrays are computed.

    A change of one element is always found, whatever its bits; a change of several is missed once in 2^64.
    """
    # One program at a time: many small ones that exchange sums at once can wait for each other for ever where devices
    # are simulated on fewer cores
    jax.block_until_ready(tree)
    sums = {path: np.asarray(_sums(jnp.asarray(leaf))) for path, leaf in flat(tree).items()}
    return {path: "".join(f"{int(half):08x}" for half in pair) for path, pair in sums.items()}


@jax.jit
def _sums(array: Array) -> UInt32[Array, 2]:
    """Two sums over all elements, each mixed with its place. Sums of whole numbers do not depend on their order, so
    each device adds up what it has."""
    words = _words(array)
    place = _places(words.shape)
    return jnp.stack(
        [_mixed(words ^ (place * jnp.uint32(seed))).sum(dtype=jnp.uint32) for seed in SEEDS]
    )


def _words(array: Array) -> UInt32[Array, ...]:
    """The bits of every element as whole numbers of 32 bits; an element of 64 bits has two."""
    if array.dtype == jnp.bool_:
        return array.astype(jnp.uint32)
    bits = min(array.dtype.itemsize * 8, 32)
    return lax.bitcast_convert_type(array, f"uint{bits}").astype(jnp.uint32)


def _places(shape: tuple[int, ...]) -> UInt32[Array, ...]:
    """The number of each element in the order of rows, modulo 2^32."""
    place = jnp.zeros(shape, jnp.uint32)
    for axis, size in enumerate(shape):
        place = place * jnp.uint32(size % 2**32) + lax.broadcasted_iota(jnp.uint32, shape, axis)
    return place


def _mixed(words: UInt32[Array, ...]) -> UInt32[Array, ...]:
    for shift, factor in zip(SHIFTS, (*FACTORS, 1), strict=True):
        words = (words ^ (words >> shift)) * jnp.uint32(factor)
    return words
