"""Attention of the class token: the weights that the network itself uses."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

import fmjax
from fmjax.errors import UsageError
from fmjax.models.attention import class_attention
from fmjax.models.build import initialise
from fmjax.models.layers import split_heads
from fmjax.models.stack import between

SMALL = {"width": 16, "depth": 3, "num_heads": 2, "mlp_dim": 32, "image_size": (32, 48)}
IMAGES = jnp.asarray(np.random.default_rng(0).standard_normal((2, 32, 48, 3)), jnp.float32)


def small(name: str, **changes):
    spec = fmjax.get_spec(name)
    sizes = SMALL | {"patch_size": 8} | changes
    return initialise(replace(spec, name="small", **sizes), nnx.Rngs(0))


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "dinov3_vits16"])
def test_they_are_those_that_the_last_block_uses(name):
    model = small(name)
    weights, patches = jax.jit(class_attention)(model, IMAGES)
    assert np.allclose(weights.sum(-1), 1, atol=1e-5)
    assert patches.shape == (2, 2, 4, 6)
    # the values that they weigh are what the block adds to its class token
    x, _, rope = model.embed(IMAGES)
    x = model.run_blocks(x, rope, stop=2)
    [(stack, _)] = between([model.blocks], 2, 3)
    block = jax.tree.map(lambda leaf: leaf[0], stack)
    seen = block.norm1(x)
    values = split_heads(block.attn.v(seen), 2)
    mixed = rearrange(jnp.einsum("bnl,bnlk->bnk", weights, values), "b n k -> b (n k)")
    expected = block.attn(seen, rope).whole[:, 0]
    assert np.allclose(block.attn.out(mixed), expected, atol=1e-5)


def test_a_pool_by_attention_has_its_own():
    model = small("ViT-B-16-SigLIP", pool_heads=2, pool_mlp_dim=32)
    weights, patches = jax.jit(class_attention)(model, IMAGES)
    assert np.allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.allclose(patches.sum((2, 3)), 1, atol=1e-5)
    tokens = model.final_norm(model.run_blocks(model.embed(IMAGES)[0], None))
    values = split_heads(model.pool.v(tokens), 2)
    mixed = rearrange(jnp.einsum("bnl,bnlk->bnk", weights, values), "b n k -> b (n k)")
    pooled = model.pool.out(mixed)
    expected = pooled + model.pool.mlp(model.pool.norm(pooled)).whole
    assert np.allclose(expected, model.pool(tokens), atol=1e-5)


def test_a_mean_of_patches_has_none():
    model = small("dinov2_vits14", num_cls=0, pool="patches", positions="patches", depth=1)
    with pytest.raises(UsageError, match="has no class token and no attention pool"):
        class_attention(model, IMAGES)
