"""By what the blocks of a model compute their parts, as the devices, the dtype and the shapes allow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from jax.sharding import Mesh
from jax.typing import DTypeLike

from fmjax.kernels import activation, attention, norm
from fmjax.kernels.activation import Activate
from fmjax.kernels.norm import Fork
from fmjax.sharding import batch_divisor, first_device, parts, split
from fmjax.specs import ViTSpec


class Kernels(NamedTuple):
    """By what a block computes its attention, its norms and its activations; None: by XLA."""

    attention: attention.Chosen = attention.PLAIN
    fork: Fork | None = None
    # of what all heads of a token give. Where they lie on several devices XLA sums up what a norm needs
    fork_heads: Fork | None = None
    activate: Activate | None = None
    # whether factors go into the kernel in front of them. Devices that share kernels would not gather all at once
    folded: bool = False
    # whether the bias at the end of a branch is a constant there, and has its gradient from the norm behind it
    held: bool = False
    # whether XLA is to add up as it ends a product, residuals and gradients: not where devices add up their parts of it
    joined: bool = False


@dataclass(frozen=True)
class Asked:
    """The kernels that a model is built with, by their names."""

    attention: attention.Kernel = "auto"
    norms: norm.Kernel = "auto"
    activations: activation.Kernel = "auto"


BY_XLA = Kernels()


def chosen(
    asked: Asked, spec: ViTSpec, mesh: Mesh | None, *, dtype: DTypeLike, images: int, tokens: int
) -> Kernels:
    """For blocks that compute so many tokens of each of so many images in a dtype, in a program for a mesh.

    Raises UsageError where a kernel is asked for by its name and cannot run there.
    """
    if not images:
        # kernels go over some rows, and 0 means any number of images to what follows
        return BY_XLA
    shape: dict[str, Any] = {"dtype": dtype, "images": images, "tokens": tokens}
    shape |= {"heads": spec.num_heads, "head_dim": spec.head_dim}
    attend = attention.chosen(asked.attention, mesh, **shape)
    fork = norm.chosen(asked.norms, mesh, dtype=dtype, width=spec.width, images=images)
    activate = activation.chosen(
        asked.activations,
        mesh,
        dtype=dtype,
        activation=spec.block_activation,
        width=spec.mlp_dim,
        normed=spec.block_activation_normed,
        images=images,
    )
    # a kernel has whole rows, which XLA would gather for it
    fork_heads = fork if parts(mesh) == 1 else None
    flags = {"folded": not split(mesh), "held": fork is not None}
    # on a CPU its products end by nothing, and numbers keep the order in which they are added up
    if first_device(mesh).platform != "cpu":
        flags["joined"] = parts(mesh) == 1 and images % batch_divisor(mesh) == 0
    return Kernels(attend, fork, fork_heads, activate, **flags)
