"""A model as a pure function of a plain nested dict of parameters, and back."""

from __future__ import annotations

from collections.abc import Callable

import jax
from jaxtyping import Array, Float

from fmjax.errors import UsageError
from fmjax.models.features import Features
from fmjax.models.vit import ViT
from fmjax.trees import Params, flat, leaf_paths, nested, ordered

Apply = Callable[..., Features]


def functional(model: ViT) -> tuple[Apply, Params]:
    """`apply, params`: a pure function `apply(params, images, key=None) -> Features`, and a plain nested dict of
    arrays."""
    # the structure carries the spec and all settings; only arrays go through `params`
    structure, paths = jax.tree.structure(model), leaf_paths(model)

    def apply(
        params: Params, images: Float[Array, "B H W C"], key: Array | None = None
    ) -> Features:
        return jax.tree.unflatten(structure, ordered(params, paths))(images, key)

    return apply, nested(flat(model))


def with_params(model: ViT, params: Params) -> ViT:
    """The model with other parameters. Raises UsageError, naming all of them, for paths missing, unknown or
    misshapen."""
    leaves = ordered(params, leaf_paths(model))
    old = flat(model)
    # all of them: one wrong shape may be a typing error, and twelve are another model
    wrong = [
        f"{p} {n.shape}, expected {o.shape}"
        for (p, o), n in zip(old.items(), leaves, strict=True)
        if n.shape != o.shape
    ]
    if wrong:
        raise UsageError(f"parameters of another shape: {'; '.join(wrong)}")
    return jax.tree.unflatten(jax.tree.structure(model), leaves)
