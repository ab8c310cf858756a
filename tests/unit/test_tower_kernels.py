"""Whole towers by their kernels: what they compute and learn, on one device and on several, is what they do by XLA."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from fmjax.kernels import attention, devices, norm
from fmjax.models import kernels as model_kernels
from fmjax.models.build import abstract, initialise, leaf_shardings
from fmjax.models.functional import functional, with_params
from fmjax.names import get_spec
from fmjax.sharding import batch_sharding, make_mesh
from tests.support.checkpoints import small
from tests.unit.test_kernels import H100

pytestmark = pytest.mark.usefixtures("quick_compiler")

HERE = make_mesh(1, 1, 1, devices=jax.devices()[:1])


@pytest.mark.parametrize(
    ("changed", "unroll", "part"),
    [
        ({}, False, "patches"),
        ({}, False, "embedding"),
        ({}, True, "patches"),
        ({"layer_scale": True}, True, "embedding"),
        ({"bias": False}, False, "embedding"),
        # where a bias is not in what the next norm normalises
        ({"block": "post_norm"}, True, "embedding"),
        # q and k are turned behind their biases
        ({"rope": get_spec("EVA02-B-16").rope}, True, "embedding"),
        ({"drop_path": 0.5}, False, "patches"),
        ({"drop_path": 0.5, "drop_path_by": "subset"}, True, "embedding"),
    ],
)
def test_a_tower_and_its_gradients_are_the_same_by_the_kernels(changed, unroll, part, monkeypatch):
    """Norms' and attention's, of biases too, whichever kernel gives these; and residuals that end a product."""
    options: dict[str, Any] = {
        name: changed[name] for name in changed if name.startswith("drop_path")
    }
    fields = {name: changed[name] for name in changed if name not in options}
    gradients = of_tower(fields, "float32", unroll=unroll, part=part, **options)
    expected = gradients(HERE, norms="xla", attention="xla")
    everywhere(monkeypatch)
    found = gradients(HERE, norms="pallas", attention="pallas")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        # the true gradient of a bias of k is zero
        assert np.abs(a - b).max() <= 2e-5 * (1 + np.abs(b).max())


@pytest.mark.parametrize(
    ("changed", "dtype", "sizes"),
    [
        # factors are in the kernel in front of them, but where parameters are split
        ({"layer_scale": True}, "bfloat16", (4, 1, 1)),
        ({"layer_scale": True}, "bfloat16", (2, 2, 1)),
        ({"rope": get_spec("EVA02-B-16").rope}, "float32", (1, 2, 2)),
    ],
)
def test_a_tower_on_several_devices_has_the_gradients_of_one(changed, dtype, sizes, monkeypatch):
    mesh = make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))])
    gradients = of_tower(changed, dtype, unroll=True, part="embedding")
    loss, expected = gradients(HERE, norms="xla", attention="xla")
    everywhere(monkeypatch)
    by_kernels, found = gradients(mesh, norms="pallas", attention="pallas")
    allowed = 0.02 if dtype == "bfloat16" else 1e-5
    assert by_kernels == pytest.approx(loss, rel=allowed)
    # the true gradient of a bias of k is zero, and what rounding makes of it is as large as others' rounding
    greatest = max(np.abs(x).max() for x in jax.tree.leaves(expected))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert np.abs(a - b).max() <= allowed * max(np.abs(b).max(), 0.1 * greatest)


def of_tower(fields: dict[str, Any], dtype: str, *, part: str, **options: Any) -> Any:
    """A function that gives, for a mesh and kernels, a loss of a tower of two blocks and the gradients of all that it
    has."""
    spec = replace(small("ViT-B-16", depth=2), **fields)
    learned = functional(initialise(spec, nnx.Rngs(0)))[1]
    # biases and factors begin as zeros and as all the same
    keys = iter(jax.random.split(jax.random.key(2), len(jax.tree.leaves(learned))))
    learned = jax.tree.map(lambda x: x + 0.1 * jax.random.normal(next(keys), x.shape), learned)
    images = jax.random.normal(jax.random.key(1), (4, *spec.image_size, 3))

    outline = partial(abstract, spec, dtype=jnp.dtype(dtype), remat="dots", **options)

    def gradients(mesh: Mesh, **kernels: Any) -> Any:
        model = outline(mesh=mesh, **kernels)

        def loss(learned: Any, images: Any) -> Any:
            whole = with_params(model, learned)
            if part == "embedding":
                found = whole.embedding(images, jax.random.key(3))
            else:
                found = whole.unprojected(images, jax.random.key(3)).patches
            return jnp.sin(found.astype(jnp.float32)).sum()

        places = jax.tree.unflatten(jax.tree.structure(learned), leaf_shardings(model, mesh))
        given = jax.device_put((learned, images), (places, batch_sharding(mesh)))
        return jax.device_get(jax.jit(jax.value_and_grad(loss))(*given))

    return gradients


def everywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on the kernels are in programs of any device and dtype, which a CPU computes by their plain forms."""
    monkeypatch.setattr(devices, "HALVES", (jnp.dtype("float32"), jnp.dtype("bfloat16")))
    for kernels in (norm, attention):
        monkeypatch.setattr(kernels, "unfit", lambda *_, **__: "")
    monkeypatch.setattr(model_kernels, "first_device", lambda mesh: H100)
