"""How far two trainings are apart that began with the same tensors and saw the same batches."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.parity.measure import error, random_params
from tests.parity.training import ours, theirs
from tests.parity.training.settings import CLASSES, STEPS, Backbone, Script, Setting
from tests.parity.training.theirs import Tensors, Trained
from tests.support.torch_reference import torch

# Losses are held to 40 times, parameters to 10 times what the noise of float32 came to in 50 steps. The noise of a
# parameter is that of single numbers whose gradient is as small as Adam's eps: it makes whole steps of it.
LOSS, PARAMETER = 1e-4, 1e-3
# Of the way that a tensor went, all its numbers together. A scale near 1 goes a part in 1e3 or 1e4 at a step, which
# float32 rounds by 6e-8.
WAY = 1e-3
# the softmax does not see a constant added to every key: the true gradient is zero, and Adam makes steps of its noise
NOISE = ("blocks.attn.k.bias", "blocks.attn.q.bias")  # and the bias whose size it is held to


@dataclass(frozen=True)
class Distance:
    """The largest over all steps, or over all tensors but the k bias."""

    loss: float
    norm: float  # of the gradient
    parameter: float  # relative to the largest value of the tensor
    parameter_of: str
    way: float  # norm of the difference, relative to that of the way from the first value
    way_of: str
    k_bias: float | None  # relative to the largest value of the q bias; None where there is none
    average: float | None  # as `parameter`; None where no average is kept
    average_way: float | None

    @property
    def over(self) -> dict[str, float]:
        """What is beyond its bound; a number that is none is, too."""
        bounds = {"loss": LOSS, "norm": LOSS, "parameter": PARAMETER, "way": WAY}
        bounds |= {"average": PARAMETER, "average_way": WAY}
        values = {name: getattr(self, name) for name in bounds}
        return {
            name: value
            for name, value in values.items()
            if value is not None and not value < bounds[name]
        }


@dataclass(frozen=True)
class Result:
    """One backbone in one setting: the curves, and how far from each other they and their ends are."""

    backbone: str
    setting: str
    clipped: int  # steps whose gradient was clipped
    ours: list[float]  # losses
    timm: list[float]
    apart: Distance  # ours from timm's
    ours_exact: Distance  # from timm's in float64
    timm_exact: Distance
    # the first gradient, after clipping, of the number in which timm's parameters are furthest from the exact ones
    gradient: float
    # loss of ours from timm's, its Adam correcting the bias of its moments as optax does
    corrected: float
    seconds: float


@dataclass(frozen=True)
class Prepared:
    """Our side trained, and what the other side needs to begin alike."""

    backbone: Backbone
    setting: Setting
    file: Tensors
    batches: theirs.Batches
    trained: Trained

    def timm(self, script: Script | None = None, **options: Any) -> Trained:
        """timm's side, with another script or with options of `theirs.train`."""
        model = theirs.build(self.backbone, self.file)
        return theirs.train(model, self.batches, script or self.setting.script, **options)

    def distance(self, one: Trained, other: Trained) -> Distance:
        """How far one training is from another, by which all that is relative is measured."""
        first, (found, expected) = self._params(self.file), map(self._ends, (one, other))
        kept = [path for path in first if path not in NOISE[:1]]
        apart = {path: error(found[0][path], expected[0][path]) for path in kept}
        ways = _ways(first, found[0], expected[0], kept)
        worst, longest = max(apart, key=lambda p: apart[p]), max(ways, key=lambda p: ways[p])
        average = average_way = None
        if expected[1]:
            average = max(error(found[1][path], expected[1][path]) for path in kept)
            average_way = max(_ways(first, found[1], expected[1], kept).values())
        return Distance(
            loss=_apart(one.losses, other.losses),
            norm=_apart(one.norms, other.norms),
            parameter=apart[worst],
            parameter_of=worst,
            way=ways[longest],
            way_of=longest,
            k_bias=_k_bias(found[0], expected[0]),
            average=average,
            average_way=average_way,
        )

    def first_gradient(self, found: Trained, exact: Trained) -> float:
        """What a number that came to be furthest apart began with."""
        path = self.distance(found, exact).parameter_of
        tensors = (found.params, exact.params, exact.gradients)
        one, other, gradient = (self._params(file)[path] for file in tensors)
        where = np.abs(one - other).argmax()
        return float(np.abs(gradient.ravel()[where]))

    def _params(self, file: Tensors) -> Tensors:
        return ours.to_params(self.backbone, file) if file else {}

    def _ends(self, trained: Trained) -> tuple[Tensors, Tensors]:
        """The parameters and their average, in our names."""
        return self._params(trained.params), self._params(trained.average)


def prepare(backbone: Backbone, setting: Setting, steps: int = STEPS) -> Prepared:
    """Random tensors in a file of timm's names, and our training from it."""
    file = ours.to_file(backbone, random_params(backbone.spec, CLASSES, seed=1))
    run = ours.prepare(backbone, setting, file, steps)
    return Prepared(backbone, setting, file, run.batches, run.train())


def compare(backbone: Backbone, setting: Setting, steps: int = STEPS) -> Result:
    """All that the page says of a backbone in a setting."""
    start = time.monotonic()
    both = prepare(backbone, setting, steps)
    mine, timm = both.trained, both.timm()
    exact = both.timm(dtype=torch.float64)
    corrected = both.timm(make_optimiser=with_bias_of_optax)
    bound = setting.script.clip_grad or float("inf")
    return Result(
        backbone=backbone.name,
        setting=setting.name,
        clipped=sum(norm > bound for norm in mine.norms),
        ours=mine.losses,
        timm=timm.losses,
        apart=both.distance(mine, timm),
        ours_exact=both.distance(mine, exact),
        timm_exact=both.distance(timm, exact),
        gradient=both.first_gradient(timm, exact),
        corrected=_apart(mine.losses, corrected.losses),
        seconds=time.monotonic() - start,
    )


def _apart(found: list[float], expected: list[float]) -> float:
    """The largest relative difference of two curves."""
    return float(np.abs(np.divide(found, expected) - 1).max())


def _ways(first: Tensors, found: Tensors, expected: Tensors, paths: list[str]) -> dict[str, float]:
    return {
        path: _size(found[path] - expected[path]) / _size(expected[path] - first[path])
        for path in paths
    }


def _size(values: np.ndarray) -> float:
    return float(np.linalg.norm(values.ravel()))


def _k_bias(found: Tensors, expected: Tensors) -> float | None:
    key, query = NOISE
    if key not in found:
        return None
    return error(found[key], expected[key], float(np.abs(expected[query]).max()))


def with_bias_of_optax(model: Any, script: Script) -> torch.optim.Optimizer:
    """timm's optimiser, whose updates are as long as those of optax.

    Adam divides its moments by 1 - b**t. optax computes that in float32, in which 1 - 0.999 is 0.00099998713: the first
    update is shorter by 6e-6 of itself, the later ones by less.
    """
    optimiser, count = theirs.optimiser(model, script), 0

    def stretch(*_: Any) -> None:
        nonlocal count
        count += 1
        first, second = (_rounded(beta, count) for beta in script.opt_betas)
        for group in optimiser.param_groups:
            group["lr"] *= np.sqrt(second) / first

    optimiser.register_step_pre_hook(stretch)
    return optimiser


def _rounded(beta: float, count: int) -> float:
    """1 - beta**count in float32, relative to its value."""
    return float(np.float32(1) - np.float32(beta) ** np.float32(count)) / (1 - beta**count)
