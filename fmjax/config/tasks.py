"""What a run learns: the settings of each task, and where its code lives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fmjax.config.checks import require
from fmjax.specs import ClassifierInput


@dataclass(frozen=True, kw_only=True)
class TaskConfig:
    """The settings of a task.

    home: the task's class (fmjax.tasks.task.Task) as "module:Class", so that settings are read without its code; or,
    in a preset of one's own, the class itself.
    """

    home: ClassVar[Any] = ""

    def check_export(self, dialect: str) -> None:
        """Raises UsageError where a run with these settings could not be exported in a dialect."""


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(TaskConfig):
    """A class for every image, by a linear layer."""

    home = "fmjax.tasks.classify:Classify"

    classifier: ClassifierInput = (
        "pool"  # what the classifier sees: the pooled tokens, before any projection
    )
    label_smoothing: float = (
        0.0  # share of the target that is spread over all classes (arXiv:1512.00567)
    )

    def __post_init__(self) -> None:
        smoothing = self.label_smoothing
        require(0 <= smoothing < 1, "--task.label-smoothing", smoothing, "0 or more, below 1")

    def check_export(self, dialect: str) -> None:
        fits = self.classifier in ("pool", "cls")
        expected = f'"none" with --task.classifier {self.classifier}, which no other library has'
        require(fits, "--export", dialect, expected)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TaskConfig):
    """A class for every pixel, by a linear layer over patches, with a BatchNorm before it or without."""

    home = "fmjax.tasks.segment:Segment"

    layers: int | tuple[int, ...] = (
        1  # whose patches the layer sees: the last so many, or increasing indices
    )
    head: Literal["linear", "batch_norm"] = "linear"
    # of a training crop; at 1 the picture's shorter side fills the image
    scales: tuple[float, float] = (0.5, 2.0)

    def __post_init__(self) -> None:
        some = self.layers if isinstance(self.layers, int) else len(self.layers)
        require(some >= 1, "--task.layers", self.layers, "1 or more, or indices")
        low, high = self.scales
        expected = "two finite numbers above 0, the smaller first"
        require(0 < low <= high < math.inf, "--task.scales", self.scales, expected)


# those that ship with fmjax, by their home: what a stranger's record may name
SHIPPED: dict[str, type[TaskConfig]] = {kind.home: kind for kind in (ClassifyConfig, SegmentConfig)}
