"""What a backbone is (ViTSpec), what one of its published files is (Weights), and the one place that resolves names.

Importing this module never imports jax.
"""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from fmjax.errors import UsageError, nearest

if TYPE_CHECKING:
    from weights_conversion.dialect import Dialect

Activation = Literal["gelu", "gelu_tanh", "quick_gelu"]
Resample = Literal[
    "bicubic",
    "bicubic_antialias",
    "bicubic_offset",
    "bilinear",
    "bilinear_antialias",
    "bilinear_corners",
    "bilinear_window",
    "bilinear_corners_window",
]
ClassifierInput = Literal["pool", "cls", "patches", "cls_patches"]
Pool = Literal["cls", "patches", "map"]
Interpolation = Literal["bicubic", "bilinear", "bilinear_no_antialias"]  # the last is TensorFlow's, in big_vision


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions of the patches in two axes (arXiv:2104.09864); class, summary and register tokens do not turn.

    A quarter of the channels of a head belongs to each of sine and cosine of each axis; the angle of a channel pair is
    coordinate / period, and the periods are base ** (0, 1/n, 2/n, ...) for the n pairs of an axis.
    """

    base: float = 10000.0
    coordinates: Literal["index", "centred"] = "index"  # 0, 1, 2, ...; or 2 pi times the patch's centre in [-1, 1]
    offset: float = 0.0  # added to indices
    reference_grid: tuple[int, int] | None = None  # indices are rescaled to this many rows and columns
    first_axis: Literal["rows", "columns"] = "rows"  # whose channels come first
    pairs: Literal["neighbours", "halves"] = "neighbours"  # channels (0, 1), (2, 3) ...; or (0, K/2), (1, K/2 + 1) ...
    period_dtype: Literal["float32", "bfloat16"] = "float32"  # what the periods were rounded to


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
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["mlp", "swiglu"] = "mlp"
    block: Literal["pre_norm", "post_norm"] = "pre_norm"  # post_norm: x + norm(f(x)), EVA02-E
    norm_eps: float = 1e-6
    norm_pre: bool = False  # CLIP's LayerNorm between the embedding and the first block
    patch_bias: bool = True
    patch_norm: bool = False  # a norm on the patches before positions are added
    positions: Literal["cls_patches", "patches", "none"] = "cls_patches"  # what the position table has rows for
    num_cls: int = 1  # class tokens; those after the first have no position and are summaries
    num_registers: int = 0
    register_position: Literal["after_cls", "end"] = "after_cls"
    rope: Rope | None = None
    qkv_bias: bool = True
    k_bias: bool = True  # False: q and v have one, if qkv_bias
    bias: bool = True  # of the attention's output projection and of the MLP
    attn_norm: bool = False  # LayerNorm on the joined heads before the output projection
    mlp_norm: bool = False  # LayerNorm on the hidden layer before its output projection
    layer_scale: bool = False
    final_norm: bool = True
    pool: Pool = "cls"  # how tokens become one: class tokens, mean of the patches, or attention with a learned query
    pool_tokens: tuple[int, ...] = (0,)  # the class tokens that "cls" joins
    pool_heads: int = 0  # of "map"
    pool_mlp_dim: int = 0  # of "map"
    norm_after_pool: bool = False  # the final norm comes after the mean instead of before it
    embed_dim: int = 0  # width of the projected image embedding; 0: the pooled tokens themselves
    proj_bias: bool = False
    resample: Resample = "bicubic_antialias"  # how the position table follows another image size
    aliases: tuple[str, ...] = ()
    weights: str = ""  # the published weights, "arch.tag", that this spec was asked for with
    publisher: str = ""  # the dialect of the source whose code it is computed by; "" is the authors' own

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def parameters(self) -> int:
        """How many numbers the backbone has, its projection included and a classifier not."""
        width, gated, vectors = self.width, self.mlp == "swiglu", 2 if self.norm == "layer" else 1
        norm = vectors * width
        attention = 4 * width**2 + width * (self.qkv_bias * (2 + self.k_bias) + self.bias) + self.attn_norm * norm
        mlp = (2 + gated) * width * self.mlp_dim + self.bias * ((1 + gated) * self.mlp_dim + width)
        mlp += gated * self.mlp_norm * vectors * self.mlp_dim
        block = 2 * norm + attention + mlp + 2 * self.layer_scale * width
        table = (self.position_prefix + self.grid[0] * self.grid[1]) * (self.positions != "none")
        tokens = (self.num_cls + self.num_registers + table + self.patch_bias) * width
        norms = (self.patch_norm + self.norm_pre + (self.final_norm or self.norm_after_pool)) * norm
        pool = width + 4 * (width**2 + width) + norm + self.pool_mlp_dim * (2 * width + self.bias) + self.bias * width
        head = self.pool_dim * self.embed_dim + self.proj_bias * self.embed_dim
        patches = 3 * self.patch_size**2 * width
        return self.depth * block + patches + tokens + norms + (self.pool == "map") * pool + head

    @property
    def pool_dim(self) -> int:
        """Width of the pooled tokens, before any projection."""
        return self.width * (len(self.pool_tokens) if self.pool == "cls" else 1)

    @property
    def position_prefix(self) -> int:
        """Rows of the position table before those of the patches."""
        return 1 if self.positions == "cls_patches" else 0


@dataclass(frozen=True)
class Source:
    """Where a file is published and how its tensors are named."""

    kind: Literal["hf", "url", "ngc", "package"]
    location: str  # hub repository, address, or file inside this package
    filename: str
    dialect: str
    sha256: str | None = None
    overrides: Mapping[str, Any] = field(default_factory=dict)  # ViTSpec fields in which this publisher's code differs
    _: KW_ONLY
    preprocessing: Mapping[str, Any] = field(default_factory=dict)  # fields of Weights, of the preprocessing, likewise
    revision: str | None = None  # a hub's commit; None: the first use records it


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published set of weights: facts of the file, and the preprocessing that its authors evaluate with."""

    model: str
    tag: str
    sources: tuple[Source, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    image_size: tuple[int, int]  # what evaluation feeds the network, which may differ from the position table's
    licence: str
    interpolation: Interpolation = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    crop_pct: float = 1.0  # image size / resized size: 0.875 resizes to 256 and crops 224
    num_classes: int = 0  # width of the classifier that is published with them
    accuracy: Mapping[str, float] = field(default_factory=dict)  # published, in percent
    overrides: Mapping[str, Any] = field(default_factory=dict)  # ViTSpec fields that belong to these weights
    aliases: tuple[str, ...] = ()
    unverified: str = ""  # what could not be confirmed of these weights from published sources; "" where all was
    note: str = ""

    @property
    def name(self) -> str:
        return f"{self.model}.{self.tag}"


@dataclass(frozen=True, kw_only=True)
class PreprocessConfig:
    """How images are brought to the network. Sizes are (height, width) in pixels; mean and std are for values in [0,
    1]."""

    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    crop_pct: float = 1.0


def split_name(name: str) -> tuple[str, str]:
    """("arch", "tag"), split at the first dot; the tag is "" where there is none."""
    arch, _, tag = name.partition(".")
    return arch, tag


def list_models(pattern: str = "*", *, pretrained: bool = False) -> list[str]:
    """Names that a search finds: architectures, or "arch.tag" where `pretrained`.

    pattern: shell-style, or a part of a word where it has none of * ? [ ; letter case is ignored. It is looked for in
    names, tags, aliases (timm's names), the hub's repositories and families.
    """
    wanted = pattern.lower() if any(letter in pattern for letter in "*?[") else f"*{pattern.lower()}*"
    specs, weights = _rows()
    words = _words()
    return [name for name in (weights if pretrained else specs) if _finds(wanted, words[name])]


def weights_of(model: str) -> list[Weights]:
    """The published weights of an architecture, by its registered name."""
    return [weights for weights in _rows()[1].values() if weights.model == model]


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
    tags = [w.tag for w in weights_of(resolved)]
    if len(tags) == 1:
        return weights[f"{resolved}.{tags[0]}"]
    raise UsageError(f"{resolved!r} has {len(tags)} published weights; name one of: {', '.join(tags)}")


def resolve(name: str) -> str:
    """The registered "arch" or "arch.tag" behind a name, an alias, timm's name, or a "hf-hub:" form."""
    specs, weights = _rows()
    plain = name.removeprefix("hf-hub:").removeprefix("timm/")
    if plain in weights or plain in specs:
        return plain
    if plain in _aliases():
        return _aliases()[plain]
    arch, tag = split_name(plain)
    arch = _aliases().get(arch, arch)  # timm's architecture with a tag of ours
    if f"{arch}.{tag}" in weights:
        return f"{arch}.{tag}"
    if arch in specs:
        tags = [w.tag for w in weights_of(arch)]
        hint = nearest(tag, tags) or f"; its tags are {', '.join(tags) or 'none'}"
        raise UsageError(f"unknown weights {tag!r} of {arch}{hint}")
    raise UsageError(
        f"unknown model {name!r}{nearest(plain, [*specs, *weights, *_aliases()])} (`fmjax models` lists all)"
    )


_registered: list[ViTSpec | Weights] = []


def register(*rows: ViTSpec | Weights | Dialect) -> None:
    """Adds your own architectures, weights and dialects to those of the package, for this process.

    Raises UsageError, and adds nothing, where a name is taken, weights have no architecture, or a source has a dialect
    that does not exist.
    """
    from weights_conversion.detection import dialects
    from weights_conversion.detection import register as add_dialect
    from weights_conversion.dialect import Dialect

    specs, weights = _rows()
    new_specs = [row for row in rows if isinstance(row, ViTSpec)]
    new_weights = [row for row in rows if isinstance(row, Weights)]
    new_dialects = [row for row in rows if isinstance(row, Dialect)]
    for known, new in ((specs, new_specs), (weights, new_weights), (dialects(), new_dialects)):
        names = [row.name for row in new]
        taken = [name for name in names if name in known or names.count(name) > 1]
        if taken:
            raise UsageError(f"{type(new[0]).__name__} {taken[0]!r} exists already; give yours another name")
    models, tables = [*specs, *(s.name for s in new_specs)], [*dialects(), *(d.name for d in new_dialects)]
    for row in new_weights:
        if row.model not in models:
            raise UsageError(f"weights {row.name!r} are of no architecture {row.model!r}{nearest(row.model, models)}")
        unknown = [source.dialect for source in row.sources if source.dialect not in tables]
        if unknown:
            raise UsageError(f"weights {row.name!r}: no dialect {unknown[0]!r}{nearest(unknown[0], tables)}")
    for dialect in new_dialects:
        add_dialect(dialect)
    _registered.extend([*new_specs, *new_weights])
    _rows.cache_clear()
    _aliases.cache_clear()


@functools.cache
def _rows() -> tuple[dict[str, ViTSpec], dict[str, Weights]]:
    from fmjax import zoo

    specs = [*zoo.SPECS, *(row for row in _registered if isinstance(row, ViTSpec))]
    weights = [*zoo.WEIGHTS, *(row for row in _registered if isinstance(row, Weights))]
    return {s.name: s for s in specs}, {w.name: w for w in weights}


@functools.cache
def _aliases() -> dict[str, str]:
    """Other spellings -> registered name. A spelling that two rows share names neither."""
    specs, weights = _rows()
    pairs = [(alias, s.name) for s in specs.values() for alias in s.aliases]
    pairs += [(alias, w.name) for w in weights.values() for alias in w.aliases]
    hubs = [(s.location, w.name) for w in weights.values() for s in w.sources if s.kind == "hf"]
    pairs += [(location.removeprefix("timm/"), name) for location, name in hubs]
    owners: dict[str, set[str]] = {}
    for alias, name in pairs:
        owners.setdefault(alias, set()).add(name)
    return {alias: names.pop() for alias, names in owners.items() if len(names) == 1}


def _words() -> dict[str, tuple[str, ...]]:
    """What a search looks for a row in: architectures are found by their weights' words too."""
    from fmjax.zoo import FAMILY

    specs, weights = _rows()
    of_weights = {name: _names_of(row) for name, row in weights.items()}
    found = {}
    for name, spec in specs.items():
        rows = [row.name for row in weights_of(name)]
        family = FAMILY.get(name, "").lower()
        own = (name.lower(), *(alias.lower() for alias in spec.aliases), family)
        found[name] = (*own, *(word for row in rows for word in of_weights[row]))
        found |= {row: (*own, *of_weights[row]) for row in rows}
    return found


def _names_of(weights: Weights) -> tuple[str, ...]:
    locations = [source.location for source in weights.sources if source.kind == "hf"]
    return tuple(word.lower() for word in (weights.name, *weights.aliases, *locations))


def _finds(pattern: str, words: tuple[str, ...]) -> bool:
    return any(fnmatch.fnmatchcase(word, pattern) for word in words)
