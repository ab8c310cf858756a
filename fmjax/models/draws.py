"""The random numbers of new parameters: jax's own, drawn in one pass over memory on a CPU as well."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend import random
from jaxtyping import Array, UInt32

# threefry 2x32 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011, table 2 and sec. 4): the bits that
# a round turns by, which alternate after each four, and the constant of the third word of the key
TURNS = ((13, 15, 26, 6), (17, 29, 16, 24))
PARITY = np.uint32(0x1BD11BDA)
COUNTED = 1 << 32  # numbers that a word counts


def unrolled(key: Array) -> Array:
    """The same key, that draws the same numbers: inside a compiled function, where jax's own is a loop on a CPU.

    jax rolls the rounds up there, so that every four of them write and read all numbers. A key of another kind, and
    one whose numbers jax is told to count otherwise, comes back as it is.
    """
    counted: bool = getattr(jax.config, "jax_threefry_partitionable")  # noqa: B009  a type has no such field
    if jax.random.key_impl(key) != "threefry2x32" or not counted:
        return key
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=UNROLLED)


def _bits(key: UInt32[Array, " 2"], bit_width: int, shape: tuple[int, ...]) -> Array:
    """Random bits as `jax.random.bits` has them: of each number, its place in the array under the key."""
    # more than a word of them, or of another width: few, and not of parameters
    if bit_width != 32 or not 0 < math.prod(shape) < COUNTED:
        return JAX_OWN.random_bits(key, bit_width, shape)
    words = (key[0], key[1], key[0] ^ key[1] ^ PARITY)
    left, right = jnp.full(shape, words[0]), _places(shape) + words[1]
    for group in range(5):
        for turn in TURNS[group % 2]:
            left = left + right
            right = left ^ (right << np.uint32(turn) | right >> np.uint32(32 - turn))
        # the key joins in after every four rounds, with the number of the group
        left = left + words[(group + 1) % 3]
        right = right + words[(group + 2) % 3] + np.uint32(group + 1)
    return left ^ right


def _places(shape: tuple[int, ...]) -> Array:
    """The place of each number in row-major order."""
    # a sum over the axes: a reshaped range would be an array in memory
    places, stride = jnp.zeros(shape, jnp.uint32), 1
    for axis in reversed(range(len(shape))):
        step = jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(stride)
        places, stride = places + step, stride * shape[axis]
    return places


JAX_OWN = random.threefry_prng_impl
UNROLLED = random.define_prng_impl(
    key_shape=JAX_OWN.key_shape,
    seed=JAX_OWN.seed,
    split=JAX_OWN.split,
    random_bits=_bits,
    fold_in=JAX_OWN.fold_in,
    name="fmjax_threefry2x32_unrolled",
    tag="fmt",
)
