"""How parameters move: optimiser, schedule, and what is trained. A recipe knows no task and no model."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from fmjax.config.checks import compiles, require
from fmjax.specs import ParamDtype

Table = tuple[tuple[str, float], ...]
# the share of the old moment that the authors of each optimiser give it; AdamW has b1 and b2 instead. Lion
# (arXiv:2302.06675), Muon (github.com/KellerJordan/Muon); Adafactor (arXiv:1804.04235) keeps none
MOMENTUM = {"sgd": 0.9, "lion": 0.99, "muon": 0.95, "adafactor": 0.0}
# as the authors of LoRA tune it: the queries and values of all blocks (arXiv:2106.09685 sec. 7.1)
LORA_ALPHA = 16.0
LORA_TARGETS = r"backbone\.blocks\.\d+\.attn\.[qv]"
NESTEROV = ("adamw", "sgd")  # Muon always looks ahead


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """An optimiser, a schedule, and what is trained. Tables are rows of (pattern, factor) over paths such as
    backbone.blocks.3.attn.q.kernel; the first pattern that matches the whole path counts."""

    lr: float = 1e-4  # at the top of the schedule
    # images in the batch that lr is meant for: another size has its share of lr with sgd, and the root of its share
    # with the other optimisers; 0: lr is of any batch
    lr_base_size: int = 0
    # how lr falls after the warm-up: to final_lr, by step_factor at each of step_at, or not at all
    schedule: Literal["cosine", "linear", "step", "constant"] = "cosine"
    # over which lr grows to its top; half of the run where it has no more steps
    warmup_steps: int = 20
    final_lr: float = 0.01  # at the end of cosine and linear, as a part of lr
    step_at: tuple[float, ...] = (0.6, 0.8)  # of schedule step, as shares of the run
    step_factor: float = 0.1  # of schedule step: lr after each of them in units of lr before
    # all with decoupled decay; muon is of the matrices in blocks, and AdamW of the rest
    optimiser: Literal["adamw", "sgd", "lion", "adafactor", "muon"] = "adamw"
    # share of the old moment; -1 is the optimiser's own: sgd 0.9, lion 0.99, muon 0.95, adafactor none
    momentum: float = -1.0
    nesterov: bool = False  # let sgd and adamw look a step ahead
    moments: Literal["float32", "bfloat16"] = "float32"  # how the first moment is kept
    weight_decay: float = 0.05  # of matrices; biases, norms and tokens have none
    b1: float = 0.9  # share of the old first moment
    b2: float = 0.999  # share of the old second moment
    eps: float = 1e-8  # added to the root of the second moment
    train: Literal["all", "head", "norms_and_biases"] = "all"  # of a tower; heads always are
    # how kernels of the backbone are kept that no block trains: in the computation's numbers (--model.dtype) they take
    # half the memory, the step is the same, and what is exported is rounded to them
    frozen: ParamDtype = "float32"
    last_blocks: int = 0  # train so many blocks of a tower and what follows them; 0 is all of it
    rates: Table = ()  # lr of parameters in units of lr, 1 without a row; those of 0 are not trained, and cost nothing
    # weight decay of parameters in units of weight_decay, 0 without a row
    decay: Table = ((r".*\.kernel", 1.0),)
    layer_decay: float = 1.0  # lr of a block over that of the block after it (arXiv:2106.08254)
    clip_norm: float = 1.0  # largest gradient norm; 0 switches clipping off
    # whose norm that is: of all gradients together, or of each part (backbone, head) by itself
    clip_by: Literal["all", "part"] = "all"
    accumulate: int = 1  # parts of a batch that are computed one after the other
    # steps in a row that may be skipped, as their loss or gradient is not finite; more end the run
    max_skipped: int = 10
    ema: float = 0.0  # share of the old average in the average of the parameters; 0: none
    ema_warmup: bool = True  # after t steps that share is (1 + t) / (10 + t) at most
    ema_eval: bool = True  # score, keep and export the average; tasks may learn from it anyway
    # rank of the matrices that are trained beside kernels of the backbone, in their place (arXiv:2106.09685); 0: none
    lora_rank: int = 0
    lora_alpha: float = LORA_ALPHA  # their product counts lora_alpha / lora_rank times
    # whose kernels, by the paths of layers
    lora_targets: str = LORA_TARGETS

    def of_batch(self, size: int) -> Recipe:
        """The recipe with the lr of a batch of so many images: gradients of a larger one are less noisy. By its share
        for SGD (arXiv:1706.02677), by the root of that for what divides by the gradient's size (arXiv:2205.10287), as
        timm's train.py does it."""
        if not self.lr_base_size:
            return self
        share = size / self.lr_base_size
        factor = share if self.optimiser == "sgd" else math.sqrt(share)
        return replace(self, lr=self.lr * factor, lr_base_size=0)

    @property
    def old_share(self) -> float:
        """The share of the old moment in the new one, of all optimisers but AdamW."""
        return MOMENTUM[self.optimiser] if self.momentum < 0 else self.momentum

    @property
    def keeps_moment(self) -> bool:
        """Whether the optimiser has a first moment."""
        return self.optimiser == "adamw" or self.old_share > 0

    @property
    def averages(self) -> bool:
        """Whether the average of the parameters is what a run hands out."""
        return self.ema > 0 and self.ema_eval

    def __post_init__(self) -> None:
        # zero rates are a matter of the tables: a schedule of zero would train nothing
        positive, share = "above 0, and finite", "0 or more, below 1"
        require(0 < self.lr < math.inf, "--recipe.lr", self.lr, positive)
        base = self.lr_base_size
        require(
            base >= 0,
            "--recipe.lr-base-size",
            base,
            "1 or more, or 0 for an lr of any batch",
        )
        require(
            0 <= self.weight_decay < math.inf,
            "--recipe.weight-decay",
            self.weight_decay,
            "0 or more, and finite",
        )
        within = self.momentum == -1 or 0 <= self.momentum < 1
        require(within, "--recipe.momentum", self.momentum, f"{share}, or -1 for the optimiser's")
        for name, value in (
            ("--recipe.b1", self.b1),
            ("--recipe.b2", self.b2),
            ("--recipe.ema", self.ema),
        ):
            require(0 <= value < 1, name, value, share)
        require(0 < self.eps < math.inf, "--recipe.eps", self.eps, positive)
        require(self.warmup_steps >= 0, "--recipe.warmup-steps", self.warmup_steps, "0 or more")
        require(0 <= self.final_lr <= 1, "--recipe.final-lr", self.final_lr, "between 0 and 1")
        inside = all(0 < at < 1 for at in self.step_at)
        require(inside, "--recipe.step-at", self.step_at, "shares of the run between 0 and 1")
        require(0 <= self.step_factor < 1, "--recipe.step-factor", self.step_factor, share)
        require(self.last_blocks >= 0, "--recipe.last-blocks", self.last_blocks, "0 or more")
        require(
            0 < self.layer_decay <= 1,
            "--recipe.layer-decay",
            self.layer_decay,
            "above 0, at most 1",
        )
        require(self.accumulate >= 1, "--recipe.accumulate", self.accumulate, "1 or more")
        require(self.clip_norm >= 0, "--recipe.clip-norm", self.clip_norm, "0 or more")
        require(self.max_skipped >= 0, "--recipe.max-skipped", self.max_skipped, "0 or more")
        _check_table("--recipe.rates", self.rates)
        _check_table("--recipe.decay", self.decay)
        self._check_agreement()
        self._check_lora()

    def _check_agreement(self) -> None:
        """Raises UsageError for a flag that another one leaves without effect."""
        name, moments, blocks = self.optimiser, self.moments, self.last_blocks
        ahead = name in NESTEROV and self.keeps_moment
        # each: whether the two agree, the flag, its value, and what it must be beside the other one
        rules = (
            (
                self.momentum == -1 or name in MOMENTUM,
                (
                    "--recipe.momentum",
                    self.momentum,
                    f"left out with {name}, which has --recipe.b1",
                ),
            ),
            (
                not self.nesterov or ahead,
                (
                    "--recipe.nesterov",
                    self.nesterov,
                    "left out but for sgd with momentum and adamw",
                ),
            ),
            (
                moments == "float32" or self.keeps_moment,
                ("--recipe.moments", moments, f"float32 with {name}, which keeps no first moment"),
            ),
            (
                not blocks or self.train != "head",
                ("--recipe.last-blocks", blocks, "0 with --recipe.train head, which trains none"),
            ),
            (
                self.clip_by == "all" or self.clip_norm > 0,
                (
                    "--recipe.clip-by",
                    self.clip_by,
                    "all with --recipe.clip-norm 0: nothing is clipped",
                ),
            ),
        )
        for agrees, said in rules:
            require(agrees, *said)

    def _check_lora(self) -> None:
        rank, alpha, targets = self.lora_rank, self.lora_alpha, self.lora_targets
        require(rank >= 0, "--recipe.lora-rank", rank, "1 or more, or 0 for no adapters")
        require(0 < alpha < math.inf, "--recipe.lora-alpha", alpha, "above 0, and finite")
        expected = r"a regular expression, like backbone\.blocks\.\d+\.attn\.[qkv]"
        require(compiles(f"(?:{targets})"), "--recipe.lora-targets", targets, expected)
        # a rank that was forgotten would train the whole tower at a rate that is meant for adapters
        usual = (LORA_ALPHA, LORA_TARGETS)
        unasked = (alpha, targets) == usual
        expected = "1 or more with --recipe.lora-alpha or --recipe.lora-targets"
        require(rank > 0 or unasked, "--recipe.lora-rank", rank, expected)


def _check_table(flag: str, table: Table) -> None:
    for pattern, factor in table:
        expected = r"a regular expression, like backbone\.blocks\.0\..*"
        require(compiles(pattern), flag, pattern, expected)
        require(0 <= factor < math.inf, flag, factor, "a pattern and a factor of 0 or more")
