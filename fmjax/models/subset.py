"""Stochastic depth that computes a branch for some of the images alone, as DINOv2 trains (arXiv:2304.07193 sec. 5;
dinov2/layers/block.py, drop_add_residual_stochastic_depth)."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class Places(NamedTuple):
    """Which images are computed, in groups of consecutive ones: each device has one."""

    some: Int[Array, "G n"]  # in a group, the images that are computed
    order: Int[Array, "G b"]  # of each image its place among them; n and more: none


def kept(images: int, rate: float) -> int:
    """How many of some images a branch is computed for: one at least, and rounded down, as the authors do it."""
    # 10 x (1 - 0.3) is 7, and a little less in binary
    return max(1, int(images * (1 - rate) + 1e-9))


def drawn(key: Array, images: int, rate: float, *, groups: int) -> Places:
    """Of each group the same number of images, any of them as likely as another."""
    each = images // groups
    shuffled = jax.vmap(lambda key: jax.random.permutation(key, each))(
        jax.random.split(key, groups)
    )
    return Places(shuffled[:, : kept(each, rate)], jnp.argsort(shuffled))


@jax.custom_vjp
def taken(x: Float[Array, "B L D"], places: Places) -> Float[Array, "N L D"]:
    """The images at the places; no device sends any."""
    return _at(_grouped(x, places), places.some).reshape(-1, *x.shape[1:])


@jax.custom_vjp
def spread(some: Float[Array, "N T D"], places: Places) -> Float[Array, "B T D"]:
    """The images at the places among zeros. It is read, and not written into zeros: XLA does it in one pass with what
    it is added to."""
    groups = _grouped(some, places)
    there = places.order < groups.shape[1]
    found = _at(groups, jnp.minimum(places.order, groups.shape[1] - 1))
    zero = jnp.zeros((), some.dtype)
    return jnp.where(there[:, :, None, None], found, zero).reshape(-1, *some.shape[1:])


# each is the other's way back
taken.defvjp(
    lambda x, places: (taken(x, places), places), lambda places, g: (spread(g, places), None)
)
spread.defvjp(
    lambda y, places: (spread(y, places), places), lambda places, g: (taken(g, places), None)
)


def added(
    x: Float[Array, "B T D"], branch: Float[Array, "N T D"], places: Places
) -> Float[Array, "B T D"]:
    """x with the branch of the images at the places, scaled up so that its mean over draws is that of all images."""
    scale = jnp.asarray(x.shape[0] / branch.shape[0], branch.dtype)
    return x + spread(branch * scale, places)


def _at(groups: Float[Array, "G m T D"], rows: Int[Array, "G n"]) -> Float[Array, "G n T D"]:
    return jax.vmap(lambda group, own: group.at[own].get(mode="promise_in_bounds"))(groups, rows)


def _grouped(x: Float[Array, "B T D"], places: Places) -> Float[Array, "G b T D"]:
    return x.reshape(places.some.shape[0], -1, *x.shape[1:])
