"""Low-rank adapters: two small matrices beside a kernel that is not trained itself (LoRA, arXiv:2106.09685).

They are parameters of the network like all others, `blocks.attn.q.lora.a` [N I r] and `blocks.attn.q.lora.b` [N r O]
for N stacked blocks, so that tables over paths, stacks of frozen blocks, layouts and checkpoints hold for them too.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from fmjax.errors import UsageError, nearest
from fmjax.models.linear import Linear
from fmjax.models.vit import ViT

PART = "backbone"  # what the network is called among the parts of a net, and in the paths of its layers
Shapes = Mapping[str, tuple[int, ...]]
Adapters = dict[str, dict[str, Any]]  # layer -> {"a": [... I r], "b": [... r O]}


class LowRank(nnx.Module):
    """scale (x a) b: what an adapter adds to the output of its layer, in the dtype of x."""

    def __init__(self, a: Array, b: Array, scale: float):
        self.a, self.b = nnx.Param(a), nnx.Param(b)
        self.scale = scale

    def __call__(self, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
        # from left to right, and never a b first: a dense product would have a dense gradient, as large as the kernel's
        narrow = x @ self.a[...].astype(x.dtype)  # *B r
        return (narrow * self.scale) @ self.b[...].astype(x.dtype)


def layers(model: ViT) -> dict[str, Linear]:
    """The linear layers of a network by their paths: blocks.attn.q, whose kernel is that of all blocks."""
    return dict(_layers(model, ""))


def _layers(module: nnx.Module, lead: str) -> Iterator[tuple[str, Linear]]:
    for name, inner in vars(module).items():
        if isinstance(inner, Linear):
            yield f"{lead}{name}", inner
        elif isinstance(inner, nnx.Module):
            yield from _layers(inner, f"{lead}{name}.")


def targeted(model: ViT, pattern: str, rank: int) -> Shapes:
    """The layers that a pattern matches in one block or more -> the shapes of their kernels.

    pattern: over paths such as backbone.blocks.3.attn.q. Raises UsageError where it matches none, and for a rank that
    would save nothing.
    """
    shapes = {path: layer.kernel.shape for path, layer in layers(model).items()}
    names = {path: _names(path, shape) for path, shape in shapes.items()}
    found = {
        path: shapes[path]
        for path, own in names.items()
        if any(re.fullmatch(pattern, name) for name in own)
    }
    if not found:
        known = [name for own in names.values() for name in own]
        hint = nearest(pattern.replace("\\", ""), known)
        raise UsageError(
            f"--recipe.lora-targets {pattern!r} matches no layer; layers are like {known[0]}, {known[-1]}{hint}"
        )
    # as wide as the kernel is, two matrices are more than one
    path, narrowest = min(((path, min(shape[-2:])) for path, shape in found.items()), key=_last)
    if rank >= narrowest:
        raise UsageError(
            f"--recipe.lora-rank is {rank}; it must be below {narrowest}, the smaller side of {PART}.{path}.kernel"
        )
    return found


def _last(pair: tuple[str, int]) -> int:
    return pair[-1]


def _names(path: str, shape: tuple[int, ...]) -> list[str]:
    """The names of a layer: one for each block of a stacked one."""
    stack, _, rest = path.partition(".")
    if stack != "blocks":
        return [f"{PART}.{path}"]
    return [f"{PART}.{stack}.{index}.{rest}" for index in range(shape[0])]


def new_adapters(shapes: Shapes, rank: int, key: Array) -> Adapters:
    """Adapters that change nothing yet: b is zero, and a uniform between +-1/sqrt(I), as the authors' and peft's
    kaiming_uniform_(a=sqrt(5)). shapes: of the layers' kernels [... I O]."""
    keys = jax.random.split(key, len(shapes))
    return {
        path: _new(shape, rank, own)
        for (path, shape), own in zip(shapes.items(), keys, strict=True)
    }


def _new(shape: tuple[int, ...], rank: int, key: Array) -> dict[str, Array]:
    *stacked, inputs, outputs = shape
    bound = inputs**-0.5
    a = jax.random.uniform(key, (*stacked, inputs, rank), minval=-bound, maxval=bound)
    return {"a": a, "b": jnp.zeros((*stacked, rank, outputs))}


def with_adapters(model: ViT, adapters: Adapters, scale: float) -> ViT:
    """The model with adapters beside the kernels of some layers; scale: alpha / r."""
    out = jax.tree.map(lambda a: a, model)  # another module, the same arrays
    for path, matrices in adapters.items():
        layer: Any = functools.reduce(getattr, path.split("."), out)
        layer.lora = LowRank(**matrices, scale=scale)
    return out


def merged(model: ViT) -> ViT:
    """The same function without adapters: each is added to the kernel that it stands beside."""
    if all(layer.lora is None for layer in layers(model).values()):
        return model
    out = jax.tree.map(lambda a: a, model)  # another module, the same arrays
    for layer in layers(out).values():
        lora: Any = layer.lora
        if lora is not None:
            layer.kernel = nnx.Param(_sum(layer.kernel[...], lora.a[...], lora.b[...], lora.scale))
            layer.lora = None
    return out


def _sum(
    kernel: Float[Array, "*N I O"],
    a: Float[Array, "*N I r"],
    b: Float[Array, "*N r O"],
    scale: float,
) -> Float[Array, "*N I O"]:
    # once, and in all of float32's digits, which accelerators' products leave out unless they are asked
    return kernel + scale * jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)
