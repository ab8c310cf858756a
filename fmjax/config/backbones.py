"""What is asked of several backbones at once."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated

import tyro

from fmjax.config.checks import MAX_SEED, require
from fmjax.config.data import ImagesConfig
from fmjax.config.report import MAX_MAPS

Models = Annotated[tuple[str, ...], tyro.conf.arg(metavar="MODEL [MODEL ...]")]


@dataclass(frozen=True, kw_only=True)
class BackbonesConfig:
    """A page of what frozen backbones know of your images, side by side: the vote of the nearest neighbours, a linear
    probe, speed, memory, and the principal components of their patches."""

    backbones: Models = ()  # two or more, as "arch.tag", see `fmjax models`
    # a file or folder of weights for each, in their order; published: those of its source
    checkpoints: tuple[str, ...] = ()

    data: ImagesConfig = field(default_factory=ImagesConfig)
    out: str = "backbones.html"  # the file to write
    k: int = 1  # neighbours that vote
    c: float = 1.0  # inverse strength of the probe's L2 penalty, on standardised embeddings
    folds: int = 5  # of the images for the probe, where there is no val/
    seed: int = 0  # of the draw of the folds
    maps: int = 4  # images whose patches are shown; 0 leaves them out
    batch_size: int = 32  # images at a time, over all devices; the accuracies do not depend on it
    force: bool = False  # replace the file if it is there

    def __post_init__(self) -> None:
        # how many there are is the program's: a help has none
        count, own = len(self.backbones), len(self.checkpoints)
        require(
            not own or own == count,
            "--checkpoints",
            self.checkpoints,
            f"one for each of {count} backbones, or left out",
        )
        require(self.k >= 1, "--k", self.k, "1 or more")
        require(0 < self.c < math.inf, "--c", self.c, "above 0, and finite")
        require(self.folds >= 2, "--folds", self.folds, "2 or more")
        require(0 <= self.seed <= MAX_SEED, "--seed", self.seed, f"0 to {MAX_SEED}")
        require(0 <= self.maps <= MAX_MAPS, "--maps", self.maps, f"0 to {MAX_MAPS}")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
