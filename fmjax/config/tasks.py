"""What a run learns: the settings of each task, and where its code lives."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from fmjax.config.checks import require
from fmjax.config.data import DataConfig
from fmjax.errors import UsageError
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

    def check_data(self, data: DataConfig) -> None:
        """Raises UsageError where these settings contradict how a run's data are drawn."""


@dataclass(frozen=True, kw_only=True)
class MixConfig(TaskConfig):
    """Settings of a task that may learn from mixtures of two images, with the mixture of their targets."""

    mixup: float = 0.0  # alpha of the mixture of two images (arXiv:1710.09412); 0 switches it off
    cutmix: float = 0.0  # the same for a rectangle of another image (arXiv:1905.04899)
    mix_prob: float = 1.0  # share of the batches that are mixed at all
    mix_switch: float = 0.5  # share of those that are cut where both are on

    def __post_init__(self) -> None:
        for name in ("mixup", "cutmix"):
            alpha = getattr(self, name)
            require(0 <= alpha < math.inf, f"--task.{name}", alpha, "0 or more, and finite")
        for name in ("mix_prob", "mix_switch"):
            share = getattr(self, name)
            require(0 <= share <= 1, f"--task.{name.replace('_', '-')}", share, "a share")
        # a share of nothing would be a mixture that was forgotten
        if not self.mixup and not self.cutmix:
            expected = "left out without --task.mixup or --task.cutmix"
            require(self.mix_prob == 1, "--task.mix-prob", self.mix_prob, expected)
        if not self.mixup or not self.cutmix:
            expected = "left out but where both --task.mixup and --task.cutmix are above 0"
            require(self.mix_switch == 0.5, "--task.mix-switch", self.mix_switch, expected)


@dataclass(frozen=True, kw_only=True)
class ClassifyConfig(MixConfig):
    """A class for every image, by a linear layer."""

    home = "fmjax.tasks.classify:Classify"

    # what the classifier sees: the pooled tokens, before any projection
    classifier: ClassifierInput = "pool"
    # share of the target that is spread over all classes (arXiv:1512.00567)
    label_smoothing: float = 0.0

    # bce: a yes or no for each class, as in arXiv:2110.00476, whose mean over the classes is taken
    loss: Literal["cross_entropy", "bce"] = "cross_entropy"
    # factors of the losses of each class's images; balanced: one over their number, 1 on average
    class_weights: Literal["none", "balanced"] | tuple[float, ...] = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)
        # "balanced" and "none" are no factors
        factors = () if isinstance(self.class_weights, str) else self.class_weights
        fit = all(0 <= factor < math.inf for factor in factors) and factors != (0.0,) * len(factors)
        expected = "finite factors of 0 or more, one for each class, not all of them 0"
        named = isinstance(self.class_weights, str)
        require(named or fit, "--task.class-weights", self.class_weights, expected)

    def check_export(self, dialect: str) -> None:
        check_classifier_export(self.classifier, dialect)

    def check_data(self, data: DataConfig) -> None:
        if self.class_weights == "balanced" and data.sampling == "balanced":
            raise UsageError(
                "--task.class-weights and --data.sampling are both 'balanced', so that rare classes would count twice; "
                "leave one of them out"
            )


@dataclass(frozen=True, kw_only=True)
class MultiLabelConfig(MixConfig):
    """Any number of classes for every image, by a linear layer and a yes or no for each class.

    The target of a mixture is the mixture of the targets, as in timm: of a class that one of two images shows, the
    share of that image.
    """

    home = "fmjax.tasks.multilabel:MultiLabel"

    # what the classifier sees, as in classification
    classifier: ClassifierInput = "pool"
    label_smoothing: float = 0.0  # a yes is 1 minus half of it, and a no half of it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_smoothing(self.label_smoothing)

    def check_export(self, dialect: str) -> None:
        check_classifier_export(self.classifier, dialect)


def check_smoothing(share: float) -> None:
    require(0 <= share < 1, "--task.label-smoothing", share, "0 or more, below 1")


def check_classifier_export(classifier: ClassifierInput, dialect: str) -> None:
    """Raises UsageError where no other library has a classifier with such an input."""
    expected = f'"none" with --task.classifier {classifier}, which no other library has'
    require(classifier in ("pool", "cls"), "--export", dialect, expected)


@dataclass(frozen=True, kw_only=True)
class SegmentConfig(TaskConfig):
    """A class for every pixel, by a linear layer over patches, with a BatchNorm before it or without."""

    home = "fmjax.tasks.segment:Segment"

    # whose patches the layer sees: the last so many, or increasing indices
    layers: int | tuple[int, ...] = 1
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
SHIPPED: dict[str, type[TaskConfig]] = {
    kind.home: kind for kind in (ClassifyConfig, MultiLabelConfig, SegmentConfig)
}
