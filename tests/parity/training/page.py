"""The section of docs/parity.md on training, of stored results alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.parity.training.compare import LOSS, PARAMETER, WAY, Distance, Result
from tests.parity.training.settings import BATCH, DEPTH, GRID, STEPS, WIDTH

RESULTS = Path(__file__).parents[3] / "benchmarks" / "results" / "training_parity.json"
BEGIN, END = "<!-- made by python -m tests.parity.training -->", "<!-- end of training -->"
TEXT = """{begin}
## Training beside PyTorch

Made by `python -m tests.parity.training` on {date} with {versions} (Python {python}, CPU, float32).

A backbone is trained for {steps} steps twice: by fmjax's own train step, of a plan resolved as that of any run, and by
timm's model with timm's parameter groups, schedule and average (`create_optimizer_v2`, `CosineLRScheduler`,
`ModelEmaV3`), `torch.optim.AdamW` and `clip_grad_norm_`, in the order of timm's train.py. Both begin with the same
random tensors, read from one file in timm's names, and see the same {batch} images of handwritten digits at each step.
Backbones have their published graph at a width of {width}, {depth} blocks and {grid} x {grid} patches.

- **loss**: the first and the last one of ours, and the largest relative difference at any step; bound {loss:.0e}.
- **gradient**: the same of its norm, before clipping.
- **parameters**: the largest difference at the end, relative to the largest value of its tensor; bound {parameter:.0e}.
- **of the way**: the norm of a tensor's difference, relative to that of the way from its first value to its last; the
  worst tensor; bound {way:.0e}.
- **average**: that of the parameters, measured as they are: parameters, of the way.
- **k bias**: relative to the largest q bias, without a bound: the softmax does not see it, its true gradient is zero,
  and the steps that Adam makes are of noise. In float64 nothing but decay moves it.

| backbone | setting | loss, first to last | loss | gradient | parameters | of the way | average | k bias |
|---|---|---|---|---|---|---|---|---|
{lines}

**plain**: AdamW over all parameters alike, weight decay 0.05 of each of them, warm-up of 5 steps, cosine to 0.01 of
the rate. **groups**: layer decay 0.75, weight decay where timm's groups have it, an average of 0.9, 2 parts of a batch,
clipping at 1 (needed at {clipped} steps).

### Whose noise it is

The same PyTorch program in float64 is a third training, from which both are as far as this. **Gradient**: the first one
of that number of timm's which is furthest from its float64. **Adam as optax**: the loss of ours beside timm in float32
once more, its updates as long as those of optax.

| backbone | setting | loss: fmjax | timm | parameters: fmjax | timm | gradient | way: fmjax | timm | Adam as optax |
|---|---|---|---|---|---|---|---|---|---|
{noise}

- **Parameters** are as far from float64 in PyTorch as here. The worst are single numbers, a few of some hundred
  thousand, whose first gradient happens to be about as small as Adam's eps (1e-8), where most are near 1e-4 or 1e-3.
  Adam divides a gradient by its size, so that there its rounding decides on a step. All of the k bias is such numbers.
- **Of the way** the worst are scales near 1 and vectors that hardly move, which float32 rounds by 6e-8 at each step.
- **Losses** are closer to float64 in PyTorch. Adam divides its moments by 1 - b^t; optax computes that in float32, in
  which 1 - 0.999 is 0.00099998713, and so the first update is shorter by 6e-6 of itself, the later ones by less.
  With updates of that length PyTorch's losses are those of fmjax, up to what float32 does to both.

### The same training in both languages

| timm | fmjax | where they differ |
|---|---|---|
{conventions}
{end}
"""
# timm's way to say it, ours, and what to know
CONVENTIONS = (
    (
        "`torch.optim.AdamW(model.parameters())`",
        "`--recipe.decay '.*' 1 --recipe.clip-norm 0`",
        "AdamW decays all that it is given; without the row fmjax decays matrices only, and it clips at 1",
    ),
    (
        "groups by `weight_decay`: none for vectors, nor for what `no_weight_decay()` names",
        "the default of `--recipe.decay`",
        "the same tensors",
    ),
    (
        "`--layer-decay 0.75`",
        r"`--recipe.layer-decay 0.75 --recipe.rates 'backbone\.norm\..*' 0.75`",
        "timm counts the final norm to the last block, fmjax to the head, as BEiT does; a norm after pooling, "
        "`fc_norm`, is the head's in both",
    ),
    ("`--clip-grad 1`", "`--recipe.clip-norm 1`", "torch adds 1e-6 to the norm"),
    (
        "`--batch-size 16 --grad-accum-steps 2`",
        "`--batch-size 32 --recipe.accumulate 2`",
        "timm takes the mean of the parts' means, fmjax that of the batch: the same, unless images of a part are "
        "unreadable",
    ),
    (
        "`--model-ema --model-ema-decay 0.9`",
        "`--recipe.ema 0.9 --recipe.no-ema-warmup`",
        "fmjax's average begins with the parameters before the first update, as that of `ModelEmaV3.update(model)`; "
        "train.py passes the step too, with which it begins after that update",
    ),
    (
        "`--sched-on-updates --warmup-prefix`, w - 1 updates of warm-up from a `--warmup-lr` of lr / w",
        "`--recipe.warmup-steps w`",
        "update t of a warm-up of w has t / w of the rate; timm's default begins at a rate that does not depend on w",
    ),
    (
        "`--lr 1e-3 --min-lr 1e-5`",
        "`--recipe.lr 1e-3 --recipe.final-lr 0.01`",
        "a part of the rate",
    ),
    (
        "`cls_token` beside registers",
        r"`--recipe.rates 'backbone\.cls_token' 0`",
        "there timm's parameter is the sum of the class token and its position, which moves half as far as two would; "
        "where tokens decay, no row says it",
    ),
    ("a new head is random", "a new head is zero", "here both have that of the file"),
)


def section(path: Path = RESULTS) -> str:
    """The section, its markers included."""
    stored, results = json.loads(path.read_text()), load(path)
    return TEXT.format(
        begin=BEGIN,
        end=END,
        date=stored["date"],
        versions=stored["versions"],
        python=stored["python"],
        steps=STEPS,
        batch=BATCH,
        width=WIDTH,
        depth=DEPTH,
        grid=GRID,
        loss=LOSS,
        parameter=PARAMETER,
        way=WAY,
        clipped=_clipped(results),
        lines="\n".join(map(line, results)),
        noise="\n".join(map(noise, results)),
        conventions="\n".join(f"| {' | '.join(row)} |" for row in CONVENTIONS),
    )


def load(path: Path) -> list[Result]:
    """Stored results, in the order of the cases."""
    return [_result(row) for row in json.loads(path.read_text())["results"]]


def _result(row: dict[str, Any]) -> Result:
    distances = ("apart", "ours_exact", "timm_exact")
    return Result(**row | {name: Distance(**row[name]) for name in distances})


def store(path: Path, results: Sequence[Result], made: dict[str, str]) -> None:
    """Writes results with what they were made with, a row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    head = json.dumps(made).removesuffix("}")
    lines = ",\n".join(json.dumps(asdict(result)) for result in results)
    path.write_text(f'{head}, "results": [\n{lines}\n]}}\n')


def line(result: Result) -> str:
    """A row of the first table; a number beyond its bound is set in bold."""
    apart, over = result.apart, result.apart.over

    def shown(name: str) -> str:
        value = getattr(apart, name)
        text = "none" if value is None else f"{value:.1e}"
        return f"**{text}**" if name in over else text

    values = [
        f"{result.ours[0]:.3f} to {result.ours[-1]:.3f}",
        shown("loss"),
        shown("norm"),
        f"{shown('parameter')} {apart.parameter_of}",
        f"{shown('way')} {apart.way_of}",
        "none" if apart.average is None else f"{shown('average')}, {shown('average_way')}",
        shown("k_bias"),
    ]
    return f"| {result.backbone} | {result.setting} | " + " | ".join(values) + " |"


def noise(result: Result) -> str:
    """A row of the second table."""
    ours, timm = result.ours_exact, result.timm_exact
    values = [ours.loss, timm.loss, ours.parameter, timm.parameter, result.gradient]
    values += [ours.way, timm.way, result.corrected]
    shown = " | ".join(f"{value:.1e}" for value in values)
    return f"| {result.backbone} | {result.setting} | {shown} |"


def _clipped(results: Sequence[Result]) -> str:
    counts = {result.clipped for result in results if result.apart.average is not None}
    return " to ".join(str(count) for count in sorted({min(counts), max(counts)}))
