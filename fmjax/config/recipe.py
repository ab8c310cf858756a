"""How parameters move: optimiser, schedule, and what is trained. A recipe knows no task and no model."""

from __future__ import annotations

import math
from dataclasses import dataclass

from fmjax.config.checks import compiles, require

Table = tuple[tuple[str, float], ...]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """AdamW with a cosine schedule. Tables are rows of (pattern, factor) over paths such as
    backbone.blocks.3.attn.q.kernel; the first pattern that matches the whole path counts."""

    lr: float = 1e-4  # at the top of the schedule
    warmup_steps: int = (
        20  # over which lr grows to its top; half of the run where it has no more steps
    )
    final_lr: float = 0.01  # at the end, as a part of lr
    weight_decay: float = 0.05  # of matrices; biases, norms and tokens have none
    b1: float = 0.9  # share of the old first moment
    b2: float = 0.999  # share of the old second moment
    eps: float = 1e-8  # added to the root of the second moment
    rates: Table = ()  # lr of parameters in units of lr, 1 without a row; those of 0 are not trained, and cost nothing
    # weight decay of parameters in units of weight_decay, 0 without a row
    decay: Table = ((r".*\.kernel", 1.0),)
    layer_decay: float = 1.0  # lr of a block over that of the block after it (arXiv:2106.08254)
    clip_norm: float = 1.0  # largest global gradient norm; 0 switches clipping off
    accumulate: int = 1  # parts of a batch that are computed one after the other
    # steps in a row that may be skipped, as their loss or gradient is not finite; more end the run
    max_skipped: int = 10
    ema: float = 0.0  # share of the old average in the average of the parameters, which a task may learn from; 0: none

    def __post_init__(self) -> None:
        # zero rates are a matter of the tables: a schedule of zero would train nothing
        positive, share = "above 0, and finite", "0 or more, below 1"
        require(0 < self.lr < math.inf, "--recipe.lr", self.lr, positive)
        require(
            0 <= self.weight_decay < math.inf,
            "--recipe.weight-decay",
            self.weight_decay,
            "0 or more, and finite",
        )
        require(0 <= self.b1 < 1, "--recipe.b1", self.b1, share)
        require(0 <= self.b2 < 1, "--recipe.b2", self.b2, share)
        require(0 < self.eps < math.inf, "--recipe.eps", self.eps, positive)
        require(self.warmup_steps >= 0, "--recipe.warmup-steps", self.warmup_steps, "0 or more")
        require(0 <= self.final_lr <= 1, "--recipe.final-lr", self.final_lr, "between 0 and 1")
        require(
            0 < self.layer_decay <= 1,
            "--recipe.layer-decay",
            self.layer_decay,
            "above 0, at most 1",
        )
        require(self.accumulate >= 1, "--recipe.accumulate", self.accumulate, "1 or more")
        require(self.clip_norm >= 0, "--recipe.clip-norm", self.clip_norm, "0 or more")
        require(self.max_skipped >= 0, "--recipe.max-skipped", self.max_skipped, "0 or more")
        require(0 <= self.ema < 1, "--recipe.ema", self.ema, share)
        _check_table("--recipe.rates", self.rates)
        _check_table("--recipe.decay", self.decay)


def _check_table(flag: str, table: Table) -> None:
    for pattern, factor in table:
        expected = r"a regular expression, like backbone\.blocks\.0\..*"
        require(compiles(pattern), flag, pattern, expected)
        require(0 <= factor < math.inf, flag, factor, "a pattern and a factor of 0 or more")
