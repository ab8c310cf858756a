"""Images of a batch mixed with each other: mixup (arXiv:1710.09412) and cutmix (arXiv:1905.04899), as timm has them.

This is done on the device, to the whole batch before it is split into parts: no picture is read twice, and what a step
learns from is a function of the seed, its number and its images, whatever the mesh, the number of processes and
--recipe.accumulate. An image's partner is the one as far from the end of the batch as it is from the start, as in timm:
over several devices that is one exchange of bytes between pairs of them, where a random partner would be a gather of
the whole batch.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from fmjax.config.tasks import MixConfig
from fmjax.tasks.task import Batch

# folded into the key of a step; the numbers of its parts, for which drop path draws, do not come to it
STREAM = 0x6D6978


def mixed(batch: Batch, key: Array, config: MixConfig, *, labels: str) -> Batch:
    """A batch of pictures mixed with their partners; with "other", the partners' labels, and "share", how much of an
    example is its own [B]. labels: the field that they are in. The batch itself, where no mixture is on.

    All images of a batch have the same mixture. One that could not be read is no partner: its own stays as it is. Mixed
    bytes are rounded to bytes, as in timm's loader.
    """
    if not (config.mixup or config.cutmix):
        return batch
    images = batch["image"]
    _, height, width, _ = images.shape
    own, share = mixture(jax.random.fold_in(key, STREAM), (height, width), config)
    # of both, or a blank that stands for an unreadable image would be half of a good one
    read = (batch["weight"] > 0) & (batch["weight"][::-1] > 0)
    own = jnp.where(read[:, None, None, None], own[..., None], 1.0)  # B H W 1
    levels = own * images + (1 - own) * images[::-1]
    return batch | {
        "image": jnp.round(levels).astype(images.dtype),
        "other": batch[labels][::-1],
        "share": jnp.where(read, share, 1.0),
    }


def of_both(function: Callable[[Array], Array], batch: Batch, *, labels: str) -> Array:
    """A function of the labels [B ...]; of a mixed batch, the mean of both images' by their shares."""
    own = function(batch[labels])
    if "share" not in batch:
        return own
    share = batch["share"].reshape(-1, *[1] * (own.ndim - 1))
    return share * own + (1 - share) * function(batch["other"])


def mixture(
    key: Array, size: tuple[int, int], config: MixConfig
) -> tuple[Float[Array, "H W"], Float[Array, ""]]:
    """(the part of each pixel that is an image's own, the part of the target that is): of mixup, of cutmix, or 1."""
    of_prob, of_switch, of_share, of_place = jax.random.split(key, 4)
    cuts = jax.random.bernoulli(of_switch, _switch(config))
    alpha = jnp.where(cuts, config.cutmix, config.mixup)
    share = jax.random.beta(of_share, alpha, alpha)
    # a batch that is left alone is wholly its own, in both ways
    share = jnp.where(jax.random.bernoulli(of_prob, config.mix_prob), share, 1.0)
    outside = ~rectangle(of_place, size, 1 - share)
    # the rectangle may reach over the edge: what lies inside the image counts
    own = jnp.where(cuts, outside.astype(jnp.float32), share)
    return own, jnp.where(cuts, outside.mean(dtype=jnp.float32), share)


def _switch(config: MixConfig) -> float:
    """How often a mixture is a cut: where one of the two is off, the other is all there is."""
    if not config.cutmix:
        return 0.0
    return config.mix_switch if config.mixup else 1.0


def rectangle(key: Array, size: tuple[int, int], area: Array) -> Bool[Array, "H W"]:
    """The pixels of a rectangle of the image's shape with some of its area, centred on any pixel; it may be cut off."""
    inside = []
    for side, part in zip(size, jax.random.split(key, len(size)), strict=True):
        centre = jax.random.randint(part, (), 0, side)
        length = (side * jnp.sqrt(area)).astype(jnp.int32)
        first, places = centre - length // 2, jnp.arange(side)
        inside.append((places >= first) & (places < first + length))
    rows, columns = inside
    return rows[:, None] & columns
