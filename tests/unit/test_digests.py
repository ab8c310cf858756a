"""Digests of arrays: every flipped bit is another one, and the mesh makes no difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from fmjax.engine.digests import digests
from fmjax.sharding import make_mesh

KINDS = ("float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool")


def array(kind: str, shape: tuple[int, ...] = (6, 8)) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.asarray(jnp.asarray(rng.integers(0, 2, shape)).astype(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_every_flipped_bit_gives_another_digest(kind):
    start = array(kind)
    seen = {digests({"x": start})["x"]}
    bits = 1 if kind == "bool" else start.dtype.itemsize * 8
    for place in range(0, start.size, 5):
        for bit in range(bits):
            flipped = start.copy()
            flipped.view(f"uint{start.dtype.itemsize * 8}").reshape(-1)[place] ^= 1 << bit
            seen.add(digests({"x": flipped})["x"])
    assert len(seen) == 1 + bits * len(range(0, start.size, 5))


@pytest.mark.parametrize("spec", [(None, None), ("data", None), ("data", "fsdp"), (None, "tensor")])
def test_a_digest_is_the_same_on_any_mesh(spec):
    start = np.random.default_rng(0).standard_normal((8, 12)).astype(np.float32)
    mesh = make_mesh(2, 2, 2)
    placed = jax.device_put(start, NamedSharding(mesh, PartitionSpec(*spec)))
    assert digests({"a": {"b": placed}}) == digests({"a": {"b": start}})


def test_exchanged_moved_and_reshaped_numbers_have_another_digest():
    start = np.arange(12.0, dtype=np.float32)
    exchanged = start.copy()
    exchanged[[3, 7]] = exchanged[[7, 3]]
    found = {digests({"x": x})["x"] for x in (start, exchanged, np.roll(start, 1), -start)}
    assert len(found) == 4


def test_numbers_that_are_none_are_told_apart_by_their_bits():
    nan = np.array([0x7FC00000, 0x7FC00001, 0xFFC00000], np.uint32).view(np.float32)
    assert len({digests({"x": nan[i : i + 1]})["x"] for i in range(3)}) == 3
