"""Everything a run can be told: frozen dataclasses, their checks, their way to JSON and back. Never imports jax."""

from __future__ import annotations

import importlib.resources
import importlib.util
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from fmjax.errors import UsageError, nearest
from fmjax.specs import ClassifierInput, Resample

PILLOW_PIXELS = 89_478_485  # above which Pillow warns of a decompression bomb, and soon refuses
MAX_SEED = 2**32 - 1  # what numpy and scikit-learn take
Dtype = Literal["auto", "float32", "bfloat16", "float16"]


def _require(condition: bool, flag: str, value: Any, expected: str) -> None:
    if not condition:
        raise UsageError(f"{flag} is {value!r}; it must be {expected}")


def check_source(source: str) -> None:
    """Raises UsageError for what names no kind of data."""
    kind, _, rest = source.partition(":")
    fits = source == "digits" or (kind in ("folder", "tfds") and rest)
    _require(bool(fits), "--data.source", source, '"digits", "folder:DIR" or "tfds:NAME"')


def _compiles(pattern: str) -> bool:
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which backbone, and where its weights come from."""

    name: str = "demo_vit_ti4.fashion_mnist"  # "arch.tag", see `fmjax models`
    # a file or folder instead of the published source: .safetensors, .pt, .pth, .bin, .ckpt or .npz
    checkpoint: Annotated[str, tyro.conf.arg(aliases=("--checkpoint",))] = ""
    dialect: str = ""  # how its tensors are named; "" tells by the keys
    offline: bool = False  # use only what is on this machine
    init: Literal["pretrained", "random"] = "pretrained"  # random: the same network without its weights
    image_size: tuple[int, int] = (0, 0)  # (height, width) in pixels; (0, 0) is what the weights were evaluated at
    resample: Literal["weights"] | Resample = "weights"  # how the position table follows another image size
    dtype: Dtype = "auto"  # of the computation; parameters are float32. auto: bfloat16 where the device has it

    def __post_init__(self) -> None:
        height, width = self.image_size
        _require(
            (height > 0) == (width > 0) and height >= 0, "--model.image-size", self.image_size, "two sizes above 0"
        )


@dataclass(frozen=True, kw_only=True)
class ImagesConfig:
    """Images with labels: the built-in digits, an image folder, or a TensorFlow dataset in ArrayRecord files."""

    # "digits", "folder:DIR" or "tfds:NAME"
    source: Annotated[str, tyro.conf.arg(aliases=("--source",))] = "digits"
    data_dir: str = ""  # where tfds: looks; "" is its default
    threads: int = 4  # that decode and augment
    max_bad: int = 100  # unreadable images that are named, counted and left out before the run stops
    max_pixels: int = 50_000_000  # of one picture, which may take 8 bytes each; larger ones are unreadable

    def __post_init__(self) -> None:
        check_source(self.source)
        _require(self.threads >= 1, "--data.threads", self.threads, "1 or more")
        _require(self.max_bad >= 0, "--data.max-bad", self.max_bad, "0 or more")
        within = 1 <= self.max_pixels <= PILLOW_PIXELS
        _require(within, "--data.max-pixels", self.max_pixels, f"1 to {PILLOW_PIXELS}, Pillow's own limit")


@dataclass(frozen=True, kw_only=True)
class DataConfig(ImagesConfig):
    """Images to train on: what is held out of them, and how they are augmented."""

    val_fraction: float = 0.2  # of a source without a validation split, the same part of every class
    split_seed: int = 0  # of the draw of what is held out
    crop_scale: float = 0.35  # random resized crop: smallest part of the image's area; 1 switches the crop off
    flip: float = 0.5  # probability of a mirror image

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.split_seed <= MAX_SEED, "--data.split-seed", self.split_seed, f"0 to {MAX_SEED}")
        _require(0 < self.val_fraction < 1, "--data.val-fraction", self.val_fraction, "between 0 and 1")
        _require(0 < self.crop_scale <= 1, "--data.crop-scale", self.crop_scale, "above 0, at most 1")
        _require(0 <= self.flip <= 1, "--data.flip", self.flip, "a probability")


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """AdamW with a cosine schedule. Patterns are regular expressions over paths such as blocks.3.attn.q.kernel."""

    lr: float = 1e-4  # at the top of the schedule
    warmup_steps: int = 20  # over which lr grows to its top; half of the run where it has no more steps
    final_lr: float = 0.01  # at the end, as a part of lr
    weight_decay: float = 0.05  # of matrices; biases, norms and tokens have none
    b1: float = 0.9  # share of the old first moment
    b2: float = 0.999  # share of the old second moment
    eps: float = 1e-8  # added to the root of the second moment
    layer_decay: float = 1.0  # lr of a block over that of the block after it (arXiv:2106.08254)
    classifier_lr: float = 1.0  # lr of the new classifier, in units of lr
    clip_norm: float = 1.0  # largest global gradient norm; 0 switches clipping off
    label_smoothing: float = 0.0  # share of the target that is spread over all classes (arXiv:1512.00567)
    accumulate: int = 1  # parts of a batch that are computed one after the other
    freeze: tuple[str, ...] = ()  # parameters that are not trained; leading blocks cost nothing then

    def __post_init__(self) -> None:
        _require(0 < self.lr < math.inf, "--optim.lr", self.lr, "above 0, and finite")
        _require(0 <= self.weight_decay < math.inf, "--optim.weight-decay", self.weight_decay, "0 or more, and finite")
        _require(0 <= self.b1 < 1, "--optim.b1", self.b1, "0 or more, below 1")
        _require(0 <= self.b2 < 1, "--optim.b2", self.b2, "0 or more, below 1")
        _require(0 < self.eps < math.inf, "--optim.eps", self.eps, "above 0, and finite")
        _require(self.warmup_steps >= 0, "--optim.warmup-steps", self.warmup_steps, "0 or more")
        _require(0 <= self.final_lr <= 1, "--optim.final-lr", self.final_lr, "between 0 and 1")
        _require(0 < self.layer_decay <= 1, "--optim.layer-decay", self.layer_decay, "above 0, at most 1")
        _require(self.classifier_lr > 0, "--optim.classifier-lr", self.classifier_lr, "above 0")
        _require(0 <= self.label_smoothing < 1, "--optim.label-smoothing", self.label_smoothing, "0 or more, below 1")
        for pattern in self.freeze:
            _require(_compiles(pattern), "--optim.freeze", pattern, r"a regular expression, like blocks\.0\..*")
        _require(self.accumulate >= 1, "--optim.accumulate", self.accumulate, "1 or more")
        _require(self.clip_norm >= 0, "--optim.clip-norm", self.clip_norm, "0 or more")


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices each axis has. One may be -1: the devices that the others leave."""

    data: int = -1  # copies of the model
    fsdp: int = 1  # parts that each copy's parameters and optimiser state are split into
    tensor: int = 1  # parts that heads and hidden units are split into


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """A fine-tuning run."""

    out: str = "runs/finetune"  # the run's folder; running again with the same one resumes
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    steps: int = 200  # of the optimiser, in all
    batch_size: int = 64  # images in a step, over all devices
    classifier: ClassifierInput = "pool"  # what the classifier sees: the pooled tokens, before any projection
    drop_path: float = 0.0  # of the last block; blocks before it drop less (arXiv:1603.09382)
    remat: Literal["none", "dots", "full"] = "none"  # what blocks keep for the backward pass
    unroll: bool = False  # trace every block instead of scanning over them
    eval_every: int = 100  # steps between two scores of the validation part
    save_every: int = 100  # steps between two checkpoints
    log_every: int = 10  # steps between two rows of metrics.jsonl
    keep: int = 2  # checkpoints, the newest ones
    seed: int = 0  # of new parameters, drop path and the order of the images
    compare_random: bool = False  # also train the same model from random weights, and print both
    export: Literal["timm", "open_clip_timm", "none"] = "timm"  # dialect of the file that is written at the end
    fresh: bool = False  # start over: the run's checkpoints are deleted and its records written anew

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "eval_every", "save_every", "log_every", "keep"):
            _require(getattr(self, name) >= 1, f"--{name.replace('_', '-')}", getattr(self, name), "1 or more")
        _require(0 <= self.seed <= MAX_SEED, "--seed", self.seed, f"0 to {MAX_SEED}")
        _require(0 <= self.drop_path < 1, "--drop-path", self.drop_path, "0 or more, below 1")
        accumulate = self.optim.accumulate
        _require(
            self.batch_size % accumulate == 0,
            "--batch-size",
            self.batch_size,
            f"a multiple of --optim.accumulate {accumulate}",
        )
        exports = self.export == "none" or self.classifier in ("pool", "cls")
        _require(
            exports, "--export", self.export, f'"none" with --classifier {self.classifier}, which no other library has'
        )


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Embeddings of a set of images by frozen weights."""

    model: Annotated[ModelConfig, tyro.conf.arg(prefix_name=True)] = field(default_factory=ModelConfig)
    data: ImagesConfig = field(default_factory=ImagesConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    batch_size: int = 32  # images at a time, over all devices; results do not depend on it

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(FeaturesConfig):
    """Writes the embeddings of all images, with their labels and names, as one .npz file."""

    out: str = "embeddings.npz"  # the file to write
    force: bool = False  # replace the file if it is there


@dataclass(frozen=True, kw_only=True)
class KnnConfig(FeaturesConfig):
    """Nearest neighbours by cosine: train -> val, or each image against all others where there is no val/."""

    k: int = 1  # neighbours that vote

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(self.k >= 1, "--k", self.k, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(FeaturesConfig):
    """Logistic regression on frozen embeddings: train -> val, or stratified folds where there is no val/."""

    c: float = 1.0  # inverse strength of the L2 penalty, on standardised embeddings
    folds: int = 5  # of the images, where there is no val/
    seed: int = 0  # of the draw of the folds
    max_iter: int = 1000  # steps of the solver

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 < self.c < math.inf, "--c", self.c, "above 0, and finite")
        _require(self.max_iter >= 1, "--max-iter", self.max_iter, "1 or more")
        _require(0 <= self.seed <= MAX_SEED, "--seed", self.seed, f"0 to {MAX_SEED}")
        _require(self.folds >= 2, "--folds", self.folds, "2 or more")


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """A fine-tuned run on the validation part of its own data, or of another source with the same classes."""

    # instead of the run's own data: "digits", "folder:DIR" or "tfds:NAME"
    source: Annotated[str, tyro.conf.arg(aliases=("--data.source",))] = ""
    step: int = -1  # of the checkpoint; -1 is the newest
    batch_size: int = 32  # images at a time, over all devices; scores do not depend on it

    def __post_init__(self) -> None:
        _require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        _require(self.step >= -1, "--step", self.step, "a step, or -1 for the newest")
        if self.source:
            check_source(self.source)


def presets() -> dict[str, Path]:
    """The presets that ship with fmjax, by name."""
    folder = Path(str(importlib.resources.files("fmjax.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load_preset(name: str) -> FinetuneConfig:
    """The `config` of a preset: a path to a Python file, which is run, or the name of one that ships with fmjax.

    Raises UsageError for what is neither, with the nearest names.
    """
    shipped, path = presets(), Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            known = path.stem in shipped
            other = (
                f"; the preset that ships with fmjax is called {path.stem}" if known else nearest(path.stem, shipped)
            )
            raise UsageError(f"no file {name!r}{other}")
        return _config_in(path)
    if name not in shipped:
        raise UsageError(
            f"no preset {name!r}{nearest(name, shipped)}; the presets are {', '.join(shipped)}, or pass a .py file, or "
            f"a model's name"
        )
    return _config_in(shipped[name])


def _config_in(path: Path) -> FinetuneConfig:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = getattr(module, "config", None)
    if not isinstance(config, FinetuneConfig):
        raise UsageError(f"{path} defines no `config = FinetuneConfig(...)`")
    return config
