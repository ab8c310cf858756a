"""What is timed, where, and which levers are on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from fmjax.bench.timing import STEPS
from fmjax.config.bench import BenchConfig
from fmjax.config.run import RunConfig
from fmjax.engine.backbone import outlined, preprocessing
from fmjax.kernels import activation, attention, norm
from fmjax.models.flops import flops
from fmjax.models.peaks import peak
from fmjax.models.stack import kept, unrolled
from fmjax.sharding import make_mesh
from fmjax.specs import PreprocessConfig, ViTSpec


@dataclass(frozen=True)
class Subject:
    """A backbone at a size, and the device that it is timed on."""

    config: BenchConfig
    mesh: Mesh  # of one device
    run: RunConfig  # of the step that is timed
    spec: ViTSpec  # with a position table for the images
    images: PreprocessConfig
    dtype: Any  # of the computation

    @property
    def device(self) -> Any:
        return self.mesh.devices.flat[0]

    @property
    def nominal(self) -> float | None:
        """Operations a second by the device's maker; None where they are not known."""
        return peak(self.device.device_kind, jnp.dtype(self.dtype).name)

    @property
    def least(self) -> int:
        """Steps of a round: a CPU is handed nothing ahead, and its step is done when the call comes back."""
        return 1 if self.device.platform == "cpu" else STEPS


@dataclass(frozen=True)
class Lever:
    """A choice that speed depends on."""

    name: str
    asked: str
    on: str  # what it came to
    why: str = ""  # nothing faster can run here


def subject(config: BenchConfig) -> Subject:
    """What a config asks for. Raises UsageError for a name or a size that cannot be."""
    # the first device alone: how a mesh scales is another question. Weights of noise are as fast as real ones
    mesh = make_mesh(devices=jax.local_devices()[:1])
    run = RunConfig(
        model=replace(config.model, init="random"),
        batch_size=config.batch_size,
        attention=config.attention,
        norms=config.norms,
        activations=config.activations,
        remat=config.remat,
        unroll=config.unroll,
    )
    backbone = outlined(run, mesh)
    return Subject(config, mesh, run, backbone.spec, preprocessing(run), backbone.dtype)


def levers(asked: Subject) -> list[Lever]:
    """What each lever is at. Raises UsageError for a kernel that is asked for by its name and cannot run."""
    config = asked.config
    remat = kept(config.remat)
    unrolls = unrolled(config.unroll, asked.mesh, depth=asked.spec.depth, remat=config.remat)
    return [
        _attention(asked),
        _norms(asked),
        _activations(asked),
        Lever("remat", config.remat, remat),
        Lever("unroll", *(str(value).lower() for value in (config.unroll, unrolls))),
    ]


def _attention(asked: Subject) -> Lever:
    """The kernel of attention, found as the model finds it."""
    known, spec = asked.config.attention, asked.spec
    kind = {"dtype": asked.dtype, "head_dim": spec.head_dim}
    tokens = flops(spec).tokens
    name = attention.named(known, asked.mesh, heads=spec.num_heads, tokens=tokens, **kind)
    # what was asked for by its name has no other reason
    slow = known == "auto" and name == "xla"
    why = attention.unfit("cudnn", device=asked.device, **kind) if slow else ""
    return Lever("attention", known, name, why)


def _norms(asked: Subject) -> Lever:
    """The kernel of the blocks' norms."""
    known, kind = asked.config.norms, {"dtype": asked.dtype, "width": asked.spec.width}
    function = norm.chosen(known, asked.mesh, **kind)
    why = norm.unfit(asked.mesh, **kind) if known == "auto" and function is None else ""
    return Lever("norms", known, "xla" if function is None else "pallas", why)


def _activations(asked: Subject) -> Lever:
    """The kernel of the activations of the blocks' MLPs."""
    known, spec = asked.config.activations, asked.spec
    kind = {
        "dtype": asked.dtype,
        "activation": spec.block_activation,
        "width": spec.mlp_dim,
        "normed": spec.block_activation_normed,
    }
    function = activation.chosen(known, asked.mesh, **kind)
    why = activation.unfit(asked.mesh, **kind) if known == "auto" and function is None else ""
    return Lever("activations", known, "xla" if function is None else "pallas", why)
