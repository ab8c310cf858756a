"""A recipe's adapters: a backbone is given them before it is part of a net, and tasks know nothing of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import jax
from jax.sharding import Mesh

from fmjax.config.recipe import Recipe
from fmjax.engine.freeze import Shapes, names, rate
from fmjax.engine.groups import resolved
from fmjax.errors import UsageError
from fmjax.models.lora import PART, Adapters, layers, new_adapters, targeted, with_adapters
from fmjax.models.vit import ViT
from fmjax.sharding import param_shardings
from fmjax.trees import flat

INFIX = (
    ".lora."  # between the path of a layer and its matrix, as in backbone.blocks.3.attn.q.lora.a
)


def outlined(backbone: ViT, recipe: Recipe) -> ViT:
    """A backbone of shapes with the recipe's adapters; itself where it asks for none. Raises UsageError for targets
    that are no layers, and a rank that is too large."""
    if not recipe.lora_rank:
        return backbone
    draw = _draw(backbone, recipe)
    return jax.eval_shape(
        lambda model: with_adapters(model, draw(jax.random.key(0)), _scale(recipe)), backbone
    )


def attached(backbone: ViT, recipe: Recipe, seed: int, mesh: Mesh | None) -> ViT:
    """A backbone with new adapters, born on the mesh, which change nothing yet; itself where the recipe has none.

    Raises what `outlined` raises.
    """
    if not recipe.lora_rank:
        return backbone
    draw, key = _draw(backbone, recipe), jax.random.key(seed)
    where = None if mesh is None else _layouts(jax.eval_shape(draw, key), mesh)
    adapters = jax.jit(draw, out_shardings=where)(key)
    return with_adapters(backbone, adapters, _scale(recipe))


def _draw(backbone: ViT, recipe: Recipe) -> partial[Adapters]:
    shapes = targeted(backbone, recipe.lora_targets, recipe.lora_rank)
    return partial(new_adapters, shapes, recipe.lora_rank)


def _scale(recipe: Recipe) -> float:
    return recipe.lora_alpha / recipe.lora_rank


def _layouts(adapters: Adapters, mesh: Mesh) -> dict[str, dict]:
    """The places of the matrices of each layer, by the table that has those of all parameters."""
    return {
        path: {
            name: param_shardings({f"{path}{INFIX}{name}": leaf.shape}, mesh)[
                f"{path}{INFIX}{name}"
            ]
            for name, leaf in matrices.items()
        }
        for path, matrices in adapters.items()
    }


def completed(recipe: Recipe, shapes: Shapes) -> Recipe:
    """The recipe with all that it says of what is trained in its table of rates: the short forms first, then the
    user's rows, then what adapters mean: of the backbone they alone are trained, but for what a row above names.

    shapes: of a net's parameters. Raises what `groups.resolved` raises, and UsageError where no adapter would be
    trained.
    """
    recipe = resolved(recipe, shapes)
    if not recipe.lora_rank:
        return recipe
    # the user's rows come first and win; kernels that are not trained cost no gradient and no moments
    own = (
        (rf"(?:{recipe.lora_targets})\.lora\.[ab]", 1.0),
        (rf"{PART}\..*", 0.0),
    )
    rates = (*recipe.rates, *own)
    adapters = [path for path in shapes if INFIX in path]
    known = [name for path in adapters for name in names(path, shapes[path])]
    if not any(rate(name, rates) for name in known):
        raise UsageError(
            f"--recipe.rates, --recipe.train and --recipe.last-blocks leave no adapter of --recipe.lora-rank "
            f"{recipe.lora_rank} to train, as {known[0]}; loosen them, or set the rank to 0"
        )
    return replace(recipe, rates=rates)


def words(backbone: ViT, recipe: Recipe) -> str:
    """A line on the adapters of a run: where they are, and how many numbers they have."""
    found = {path: layer for path, layer in layers(backbone).items() if layer.lora is not None}
    leaves = flat(backbone)
    count = sum(leaf.size for path, leaf in leaves.items() if INFIX in path)
    where = f"rank {recipe.lora_rank}, alpha {recipe.lora_alpha:g}, beside {', '.join(found)}"
    return f"lora    {where}: {count:,} parameters"
