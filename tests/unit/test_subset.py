"""Drop path that computes its branches for some of the images alone."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fmjax.config import RunConfig
from fmjax.config.model import ModelConfig
from fmjax.engine.costs import collectives
from fmjax.errors import UsageError
from fmjax.models import subset
from fmjax.models.build import initialise
from fmjax.models.functional import functional, with_params
from fmjax.models.vit import ViT
from fmjax.sharding import make_mesh
from tests.support.checkpoints import small

pytestmark = pytest.mark.usefixtures("quick_compiler")

IMAGES = 8


def network(**options) -> ViT:
    spec = small("dinov2_vits14", depth=3)
    model = initialise(spec, drop_path_by="subset", **options)
    # layer scales of order one, or a branch is nothing
    params = functional(model)[1]
    keys = iter(jax.random.split(jax.random.key(5), len(jax.tree.leaves(params))))
    return with_params(
        model, jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), params)
    )


@pytest.fixture(scope="module")
def pictures():
    side = small("dinov2_vits14").image_size
    return jnp.asarray(np.random.default_rng(0).standard_normal((IMAGES, *side, 3), np.float32))


def close(found, expected) -> None:
    # the true gradient of a bias of k is zero
    largest = max(np.abs(expected).max(), 1.0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * largest)


def by_hand(model: ViT, images, key, rate: float):
    """All blocks for all images, each branch kept where it was drawn."""
    x, _, rope = model.embed(images)
    for index, own in enumerate(jax.random.split(key, model.spec.depth)):
        block = jax.tree.map(lambda leaf, n=index: leaf[n], model.blocks)
        for half, each in zip(("attention", "mlp"), jax.random.split(own), strict=True):
            places = subset.drawn(each, IMAGES, rate, groups=1).some[0]
            keep = jnp.zeros(IMAGES).at[places].set(IMAGES / len(places))
            branch = block.attention_branch(x, rope) if half == "attention" else block.mlp_branch(x)
            x = x + branch.whole * keep[:, None, None]
    return model.final_norm(x)


@pytest.mark.parametrize(
    "options", [{"unroll": True}, {"remat": "dots"}, {"remat": "full"}], ids=str
)
def test_values_and_gradients_are_those_of_all_branches_kept_where_drawn(pictures, options):
    model, key = network(drop_path=0.5, **options), jax.random.key(1)

    def ours(model):
        x, _, rope = model.embed(pictures)
        return model.final_norm(model.run_blocks(x, rope, key=key))

    one, back = jax.vjp(jax.jit(ours), model)
    other, back_by_hand = jax.vjp(lambda model: by_hand(model, pictures, key, 0.5), model)
    close(one, other)
    weights = jnp.asarray(np.random.default_rng(2).standard_normal(one.shape, np.float32))
    pairs = zip(jax.tree.leaves(back(weights)), jax.tree.leaves(back_by_hand(weights)), strict=True)
    for found, expected in pairs:
        close(found, expected)


def test_nothing_is_dropped_without_a_key(pictures):
    plain = network()(pictures).pooled
    dropping = network(drop_path=0.5)
    np.testing.assert_array_equal(dropping(pictures).pooled, plain)
    assert np.abs(dropping(pictures, jax.random.key(0)).pooled - plain).max() > 0


@pytest.mark.parametrize(
    ("images", "rate", "kept"),
    [(10, 0.3, 7), (128, 0.4, 76), (1, 0.5, 1), (8, 0.99, 1), (5, 0.2, 4)],
)
def test_so_many_images_are_kept(images, rate, kept):
    assert subset.kept(images, rate) == kept
    places = np.asarray(subset.drawn(jax.random.key(3), 2 * images, rate, groups=2).some)
    assert places.shape == (2, kept)
    assert all(len(set(row)) == kept and set(row) <= set(range(images)) for row in places)


def test_the_mean_over_draws_is_the_branch(pictures):
    x = pictures[:, 0]
    branch = jnp.ones_like(x)
    keys = jax.random.split(jax.random.key(4), 400)

    @jax.vmap
    def once(key):
        places = subset.drawn(key, IMAGES, 0.5, groups=2)
        return subset.added(x, subset.taken(branch, places), places)

    np.testing.assert_allclose(once(keys).mean(0), x + 1, atol=0.25)


def test_devices_draw_of_their_own_images_and_send_none(pictures):
    mesh = make_mesh(2, 2, 1, devices=jax.devices()[:4])
    model = network(drop_path=0.5, mesh=mesh)
    apply, params = functional(model)

    def loss(params):
        return apply(params, pictures, jax.random.key(0)).pooled.sum()

    text = jax.jit(jax.grad(loss)).lower(params).compile().as_text()
    kinds = {row.kind for row in collectives(text, mesh.shape) if row.trips > 1}
    assert kinds <= {"all-gather", "all-reduce"}
    tokens = model.embed(pictures)[0].shape[1]
    assert f",{tokens},{model.spec.width}]" not in "".join(
        line for line in text.splitlines() if " all-gather(" in line or "all-to-all" in line
    )


def test_what_is_not_dropped_cannot_be_dropped_by_subset():
    with pytest.raises(UsageError, match="--drop-path-by is 'subset'; it must be image without"):
        RunConfig(model=ModelConfig(), drop_path_by="subset")
