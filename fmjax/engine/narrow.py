"""Kernels that are not trained, kept in fewer bits: half the memory, and the same function where it is computed in
them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from fmjax.config.recipe import Recipe
from fmjax.engine.adapters import completed
from fmjax.engine.freeze import Table, names, rate
from fmjax.errors import UsageError
from fmjax.models.lora import PART
from fmjax.models.stack import KERNELS
from fmjax.models.vit import ViT
from fmjax.trees import flat

Dtypes = Mapping[str, DTypeLike]


def outlined(backbone: ViT, recipe: Recipe) -> ViT:
    """A backbone of shapes, its adapters included, with its kernels as the recipe keeps them. Raises UsageError where
    it keeps some in fewer bits, and trains each in some block."""
    if recipe.frozen == "float32":
        return backbone
    # by the recipe alone: no weight has been read yet
    leaves = flat(backbone)
    rates = completed(recipe, {f"{PART}.{path}": x.shape for path, x in leaves.items()}).rates
    found = [
        path
        for path, leaf in leaves.items()
        if KERNELS.fullmatch(path) and _still(path, leaf, rates)
    ]
    if not found:
        raise UsageError(
            f"--recipe.frozen is {recipe.frozen}, and no kernel is left alone in all blocks; set it to float32, or "
            f"train less (--recipe.lora-rank, --recipe.train head)"
        )
    kept = dict.fromkeys(found, jnp.dtype(recipe.frozen))
    return jax.eval_shape(lambda model: rounded(model, kept), backbone)


def _still(path: str, leaf: Any, rates: Table) -> bool:
    """Whether a parameter of a backbone is trained in no block."""
    return all(rate(name, rates) == 0 for name in names(f"{PART}.{path}", leaf.shape))


def dtypes(backbone: ViT) -> Dtypes:
    """Path -> dtype, of the parameters that are not float32."""
    return {path: leaf.dtype for path, leaf in flat(backbone).items() if leaf.dtype != jnp.float32}


def rounded(backbone: ViT, kept: Dtypes) -> ViT:
    """A backbone with some parameters in other dtypes, by their paths."""
    leaves = [leaf.astype(kept.get(path, leaf.dtype)) for path, leaf in flat(backbone).items()]
    return jax.tree.unflatten(jax.tree.structure(backbone), leaves)
