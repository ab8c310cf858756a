"""What a backbone is (ViTSpec), what one of its published files is (Weights), and the one place that resolves names.

Importing this module never imports jax.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from fmjax.errors import UsageError, nearest

Activation = Literal["gelu", "quick_gelu"]
Resample = Literal["bicubic", "bicubic_antialias", "bicubic_offset", "bilinear", "bilinear_corners"]
ClassifierInput = Literal["cls", "patches", "cls_patches"]


@dataclass(frozen=True, kw_only=True)
class ViTSpec:
    """The graph of one vision transformer. Sizes are integers in pixels, tokens or channels."""

    name: str
    width: int
    depth: int
    num_heads: int
    mlp_dim: int  # the hidden width, after the gate has been applied
    patch_size: int
    image_size: tuple[int, int]  # the size (height, width) that the position table was made for
    activation: Activation = "gelu"  # "gelu" is the exact (erf) form; a SwiGLU uses silu and ignores it
    mlp: Literal["mlp", "swiglu"] = "mlp"
    block: Literal["pre_norm", "post_norm"] = "pre_norm"  # post_norm: x + norm(f(x)), EVA02-E
    norm_eps: float = 1e-6
    norm_pre: bool = False  # CLIP's LayerNorm between the embedding and the first block
    patch_bias: bool = True
    num_registers: int = 0
    register_position: Literal["after_cls", "end"] = "after_cls"
    rope: Literal["none", "eva"] = "none"  # eva: interleaved pairs, positions arange(g) / g * 16, class token excluded
    k_bias: bool = True  # the q and v projections always have one
    attn_norm: bool = False  # LayerNorm on the joined heads before the output projection
    mlp_norm: bool = False  # LayerNorm on the hidden layer before its output projection
    layer_scale: bool = False
    embed_dim: int = 0  # width of the projected image embedding; 0: the class token itself
    proj_bias: bool = False
    resample: Resample = "bicubic_antialias"  # how the position table follows another image size
    aliases: tuple[str, ...] = ()
    weights: str = ""  # the published weights, "arch.tag", that this spec was asked for with

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads


@dataclass(frozen=True)
class Source:
    """Where a file is published and how its tensors are named."""

    kind: Literal["hf", "url", "ngc", "package"]
    location: str  # hub repository, address, or file inside this package
    filename: str
    dialect: str
    sha256: str | None = None
    revision: str | None = field(default=None, kw_only=True)  # a hub's commit; None: the first use records it


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published set of weights: facts of the file, and what its preprocessing must be."""

    model: str
    tag: str
    sources: tuple[Source, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: tuple[int, int]  # what evaluation feeds the network, which may differ from the position table's
    licence: str
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    crop_pct: float = 1.0  # image size / resized size: 0.875 resizes to 256 and crops 224
    accuracy: Mapping[str, float] = field(default_factory=dict)  # published, in percent
    overrides: Mapping[str, Any] = field(default_factory=dict)  # ViTSpec fields that belong to these weights
    aliases: tuple[str, ...] = ()
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}.{self.tag}"


def split_name(name: str) -> tuple[str, str]:
    """("arch", "tag"), split at the first dot; the tag is "" where there is none."""
    arch, _, tag = name.partition(".")
    return arch, tag


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that match a shell-style pattern (letter case is ignored): architectures, or "arch.tag" where
    `pretrained`."""
    specs, weights = _rows()
    names = weights if pretrained else specs
    return [name for name in names if fnmatch.fnmatchcase(name.lower(), pattern.lower())]


def get_spec(name: str) -> ViTSpec:
    """The architecture of "arch" or "arch.tag"; a tag's own activation and resampling are filled in.

    Raises UsageError, with the nearest names, for an unknown one.
    """
    resolved = resolve(name)
    arch, tag = split_name(resolved)
    specs, weights = _rows()
    return replace(specs[arch], weights=resolved, **weights[resolved].overrides) if tag else specs[arch]


def get_weights(name: str) -> Weights:
    """The published weights "arch.tag", or the only ones of "arch". Raises UsageError where there are none or
    several."""
    resolved = resolve(name)
    weights = _rows()[1]
    if resolved in weights:
        return weights[resolved]
    tags = [w.tag for w in weights.values() if w.model == resolved]
    if len(tags) == 1:
        return weights[f"{resolved}.{tags[0]}"]
    raise UsageError(f"{resolved!r} has {len(tags)} published weights; name one of: {', '.join(tags)}")


def resolve(name: str) -> str:
    """The registered "arch" or "arch.tag" behind a name, an alias or a "hf-hub:" form."""
    specs, weights = _rows()
    plain = name.removeprefix("hf-hub:")
    if plain in weights or plain in specs:
        return plain
    if plain in _aliases():
        return _aliases()[plain]
    arch = split_name(plain)[0]
    if arch in specs:
        tags = {w.tag: w.name for w in weights.values() if w.model == arch}
        tag = plain.partition(".")[2]
        hint = nearest(tag, tags) or f"; its tags are {', '.join(tags) or 'none'}"
        raise UsageError(f"unknown weights {tag!r} of {arch}{hint}")
    raise UsageError(
        f"unknown model {name!r}{nearest(plain, [*specs, *weights, *_aliases()])} (`fmjax models` lists all)"
    )


@functools.cache
def _rows() -> tuple[dict[str, ViTSpec], dict[str, Weights]]:
    from fmjax import zoo

    return {s.name: s for s in zoo.SPECS}, {w.name: w for w in zoo.WEIGHTS}


@functools.cache
def _aliases() -> dict[str, str]:
    """Other spellings -> registered name. A spelling that two rows share names neither."""
    specs, weights = _rows()
    pairs = [(alias, s.name) for s in specs.values() for alias in s.aliases]
    pairs += [(alias, w.name) for w in weights.values() for alias in w.aliases]
    pairs += [(s.location, w.name) for w in weights.values() for s in w.sources if s.kind == "hf"]
    owners: dict[str, set[str]] = {}
    for alias, name in pairs:
        owners.setdefault(alias, set()).add(name)
    return {alias: names.pop() for alias, names in owners.items() if len(names) == 1}
