"""What a backbone is (ViTSpec) and what one of its published files is (Weights). Imports no jax."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Literal

from fmjax.errors import UsageError

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
# the last is TensorFlow's, in big_vision
Interpolation = Literal["bicubic", "bilinear", "bilinear_no_antialias"]


@dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions of the patches in two axes (arXiv:2104.09864); class, summary and register tokens do not turn.

    A quarter of the channels of a head belongs to each of sine and cosine of each axis; the angle of a channel pair is
    coordinate / period, and the periods are base ** (0, 1/n, 2/n, ...) for the n pairs of an axis.
    """

    base: float = 10000.0
    # 0, 1, 2, ...; or 2 pi times the patch's centre in [-1, 1]
    coordinates: Literal["index", "centred"] = "index"
    offset: float = 0.0  # added to indices
    # indices are rescaled to this many rows and columns
    reference_grid: tuple[int, int] | None = None
    first_axis: Literal["rows", "columns"] = "rows"  # whose channels come first
    # channels (0, 1), (2, 3) ...; or (0, K/2), (1, K/2 + 1) ...
    pairs: Literal["neighbours", "halves"] = "neighbours"
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
    # "gelu" is the exact (erf) form; a SwiGLU uses silu and ignores it
    activation: Activation = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    mlp: Literal["mlp", "swiglu"] = "mlp"
    block: Literal["pre_norm", "post_norm"] = "pre_norm"  # post_norm: x + norm(f(x)), EVA02-E
    norm_eps: float = 1e-6
    norm_pre: bool = False  # CLIP's LayerNorm between the embedding and the first block
    patch_bias: bool = True
    patch_norm: bool = False  # a norm on the patches before positions are added
    # what the position table has rows for
    positions: Literal["cls_patches", "patches", "none"] = "cls_patches"
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
    # the dialect of the source whose code it is computed by; "" is the authors' own
    publisher: str = ""

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def head_dim(self) -> int:
        return self.width // self.num_heads

    @property
    def block_activation(self) -> str:
        """Of the blocks' MLPs, by its name among kernels: a gated one has an activation of its own."""
        return "swiglu" if self.mlp == "swiglu" else self.activation

    @property
    def block_activation_normed(self) -> bool:
        """Whether the blocks' MLPs have a norm behind their activation."""
        return self.mlp == "swiglu" and self.mlp_norm

    @property
    def parameters(self) -> int:
        """How many numbers the backbone has, its projection included and a classifier not.

        Counted from the fields, without jax; a test holds it equal to the shapes of the graph, for every row.
        """
        width, norm = self.width, self._norm_vectors * self.width
        patches = (3 * self.patch_size**2 + self.patch_bias) * width
        tokens = (self.num_cls + self.num_registers) * width
        norms = self.patch_norm + self.norm_pre + (self.final_norm or self.norm_after_pool)
        total = patches + tokens + norms * norm + self.depth * self._block_parameters
        if self.positions != "none":
            total += (self.position_prefix + math.prod(self.grid)) * width
        if self.pool == "map":
            probe, attention = width, 4 * (width**2 + width)
            mlp = self.pool_mlp_dim * (2 * width + self.bias) + self.bias * width
            total += probe + attention + norm + mlp
        return total + (self.pool_dim + self.proj_bias) * self.embed_dim

    @property
    def _norm_vectors(self) -> int:
        """Scale and bias, or the scale alone."""
        return 2 if self.norm == "layer" else 1

    @property
    def _block_parameters(self) -> int:
        width, hidden = self.width, self.mlp_dim
        norm = self._norm_vectors * width
        # matrices into the hidden layer: the gate's and the values'
        inner = 2 if self.mlp == "swiglu" else 1
        biases = self.qkv_bias * (2 + self.k_bias) + self.bias
        attention = 4 * width**2 + biases * width + self.attn_norm * norm
        mlp = (inner + 1) * width * hidden + self.bias * (inner * hidden + width)
        if self.mlp == "swiglu" and self.mlp_norm:
            mlp += self._norm_vectors * hidden
        return 2 * norm + attention + mlp + 2 * self.layer_scale * width

    @property
    def pool_dim(self) -> int:
        """Width of the pooled tokens, before any projection."""
        return self.width * (len(self.pool_tokens) if self.pool == "cls" else 1)

    def of_class_tokens(self, classifier: ClassifierInput = "pool") -> bool:
        """Whether what a classifier sees is made of class tokens alone, by default that which is pooled."""
        return classifier == "cls" or (classifier == "pool" and self.pool == "cls")

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
    # ViTSpec fields in which this publisher's code differs
    overrides: Mapping[str, Any] = field(default_factory=dict)
    _: KW_ONLY
    # fields of Weights, of the preprocessing, likewise
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    revision: str | None = None  # a hub's commit; None: the first use records it


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One published set of weights: facts of the file, and the preprocessing that its authors evaluate with."""

    model: str
    tag: str
    sources: tuple[Source, ...]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    # what evaluation feeds the network, which may differ from the position table's
    image_size: tuple[int, int]
    licence: str
    interpolation: Interpolation = "bicubic"
    resize_mode: Literal["shortest", "squash"] = "shortest"
    crop_pct: float = 1.0  # image size / resized size: 0.875 resizes to 256 and crops 224
    num_classes: int = 0  # width of the classifier that is published with them
    accuracy: Mapping[str, float] = field(default_factory=dict)  # published, in percent
    # ViTSpec fields that belong to these weights
    overrides: Mapping[str, Any] = field(default_factory=dict)
    aliases: tuple[str, ...] = ()
    # what could not be confirmed of these weights from published sources; "" where all was
    unverified: str = ""
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


# how the logits of a classifier are read: as shares of one, or each as a yes or no
LogitReading = Literal["softmax", "sigmoid"]
DropPathBy = Literal["image", "subset"]
ParamDtype = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What a model knows beside its graph: what it is to be shown, and what the outputs of its classifier mean.

    classes: their names, in the order of the outputs; () where nobody has named them.
    """

    images: PreprocessConfig
    classes: tuple[str, ...] = ()
    reading: LogitReading = "softmax"

    def __hash__(self) -> int:
        # it is hashed at every call of a jitted function, and 20,000 names would be as often
        return hash((self.images, len(self.classes), self.reading))


def nearest_sizes(size: int, patch: int) -> tuple[int, ...]:
    """The multiples of the patch on both sides of a size that is none."""
    low = max(patch, size // patch * patch)
    return (low,) if low >= size else (low, math.ceil(size / patch) * patch)


def check_image_size(size: tuple[int, ...], spec: ViTSpec) -> None:
    """Raises UsageError unless height and width are multiples of the patch, or are the published size: what is left of
    that over the last patch is not read, as by the original's convolution."""
    if tuple(size) == spec.image_size or all(n > 0 and n % spec.patch_size == 0 for n in size):
        return
    near = " x ".join(" or ".join(map(str, nearest_sizes(n, spec.patch_size))) for n in size)
    raise UsageError(
        f"{spec.name} takes images in multiples of its patch of {spec.patch_size}, got {size[0]} x {size[1]}; "
        f"nearest: {near}"
    )
