"""How parameters move: optimiser, schedule, and what is trained."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fmjax.config.checks import compiles, require


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
        require(0 < self.lr < math.inf, "--optim.lr", self.lr, "above 0, and finite")
        require(0 <= self.weight_decay < math.inf, "--optim.weight-decay", self.weight_decay, "0 or more, and finite")
        require(0 <= self.b1 < 1, "--optim.b1", self.b1, "0 or more, below 1")
        require(0 <= self.b2 < 1, "--optim.b2", self.b2, "0 or more, below 1")
        require(0 < self.eps < math.inf, "--optim.eps", self.eps, "above 0, and finite")
        require(self.warmup_steps >= 0, "--optim.warmup-steps", self.warmup_steps, "0 or more")
        require(0 <= self.final_lr <= 1, "--optim.final-lr", self.final_lr, "between 0 and 1")
        require(0 < self.layer_decay <= 1, "--optim.layer-decay", self.layer_decay, "above 0, at most 1")
        require(self.classifier_lr > 0, "--optim.classifier-lr", self.classifier_lr, "above 0")
        require(0 <= self.label_smoothing < 1, "--optim.label-smoothing", self.label_smoothing, "0 or more, below 1")
        for pattern in self.freeze:
            require(compiles(pattern), "--optim.freeze", pattern, r"a regular expression, like blocks\.0\..*")
        require(self.accumulate >= 1, "--optim.accumulate", self.accumulate, "1 or more")
        require(self.clip_norm >= 0, "--optim.clip-norm", self.clip_norm, "0 or more")
