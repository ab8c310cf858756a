"""The random numbers of new parameters are those of jax, bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from fmjax.models.build import create
from fmjax.models.draws import unrolled
from fmjax.models.vit import ViT
from fmjax.names import get_spec
from fmjax.trees import flat

NAME = "demo_vit_ti4"


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 7), (2, 3, 4), (0, 3)])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_the_bits_are_jaxs_own(shape, dtype):
    key = jax.random.key(3)
    found = jax.random.bits(unrolled(key), shape, dtype)
    np.testing.assert_array_equal(found, jax.random.bits(key, shape, dtype))


def test_keys_split_as_jaxs_own_do():
    def drawn(key: jax.Array) -> jax.Array:
        keys = jax.random.split(jax.random.fold_in(key, 5), 3)
        # bits, and not what is computed from them: that is rounded as it is compiled
        return jax.vmap(lambda one: jax.random.bits(one, (4, 3)))(keys)

    key = jax.random.key(7)
    np.testing.assert_array_equal(drawn(unrolled(key)), drawn(key))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_a_model_has_the_numbers_that_its_seed_always_gave(dtype):
    def by_jax(key: jax.Array) -> ViT:
        return ViT(get_spec(NAME), rngs=nnx.Rngs(key), param_dtype=dtype)

    plain = jax.jit(by_jax)(nnx.Rngs(5).params())
    created = flat(create(NAME, rngs=nnx.Rngs(5), param_dtype=dtype))
    for path, leaf in flat(plain).items():
        np.testing.assert_array_equal(leaf, created[path], err_msg=path)


def test_another_kind_of_key_stays():
    key = jax.random.key(0, impl="rbg")
    assert unrolled(key) is key
    first = create(NAME, rngs=nnx.Rngs(key))
    assert bool(jnp.isfinite(first.patch_embed.kernel[...]).all())


def test_a_key_whose_numbers_are_counted_otherwise_stays():
    key = jax.random.key(0)
    with jax.threefry_partitionable(False):
        assert unrolled(key) is key


def test_the_compiled_program_has_no_loop():
    lowered = jax.jit(lambda key: jax.random.bits(unrolled(key), (64,))).lower(jax.random.key(0))
    assert "while" not in lowered.as_text()
