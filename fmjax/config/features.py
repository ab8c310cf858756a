"""What is asked of frozen weights."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from fmjax.config.checks import MAX_SEED, require
from fmjax.config.data import ImagesConfig
from fmjax.config.hosts import HostsConfig
from fmjax.config.model import ModelConfig
from fmjax.config.run import MeshConfig


@dataclass(frozen=True, kw_only=True)
class FeaturesConfig:
    """Embeddings of a set of images by frozen weights."""

    model: Annotated[ModelConfig, tyro.conf.arg(prefix_name=True)] = field(
        default_factory=ModelConfig
    )
    data: ImagesConfig = field(default_factory=ImagesConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    batch_size: int = 32  # images at a time, over all devices; results do not depend on it

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(FeaturesConfig):
    """Writes the embeddings of all images, with their labels, where they have any, and their names, as one file.

    It is made of parts in a folder beside it, .NAME.parts, which is gone when the file is whole: the same command run
    again goes on where it was stopped, and has nothing left to do where the file is whole.
    """

    out: str = "embeddings.npz"  # the file to write, .npz, .parquet or .safetensors
    part_images: int = 50_000  # whose embeddings are in memory, and may be lost where it is stopped
    force: bool = False  # replace the file if it is there, and parts of other settings

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.part_images >= 1, "--part-images", self.part_images, "1 or more")


@dataclass(frozen=True, kw_only=True)
class KnnConfig(FeaturesConfig):
    """Nearest neighbours by cosine: train -> val, or each image against all others where there is no val/."""

    k: int = 1  # neighbours that vote

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.k >= 1, "--k", self.k, "1 or more")


@dataclass(frozen=True, kw_only=True)
class ProbeConfig(FeaturesConfig):
    """Logistic regression on frozen embeddings: train -> val, or stratified folds where there is no val/."""

    c: float = 1.0  # inverse strength of the L2 penalty, on standardised embeddings
    sweep: bool = False  # choose --c, 1e-6 to 1e6, on images held out of those to train on
    folds: int = 5  # of the images, where there is no val/
    seed: int = 0  # of the draw of the folds
    max_iter: int = 1000  # steps of the solver

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 < self.c < math.inf, "--c", self.c, "above 0, and finite")
        agrees = self.c == 1.0 or not self.sweep
        require(agrees, "--c", self.c, "left out with --sweep, which chooses it")
        require(self.max_iter >= 1, "--max-iter", self.max_iter, "1 or more")
        require(0 <= self.seed <= MAX_SEED, "--seed", self.seed, f"0 to {MAX_SEED}")
        require(self.folds >= 2, "--folds", self.folds, "2 or more")
