"""What is asked of an average of runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from fmjax.config.checks import require
from fmjax.config.run import MeshConfig

SUM = 1e-6  # how far the weights' sum may be from 1: they are typed in decimals


@dataclass(frozen=True, kw_only=True)
class AverageConfig:
    """A run whose parameters are an average of those of several runs, or of a run and the weights it began with."""

    out: str = "runs/average"  # the folder of the new run
    # of each source, in their order; () is the same for all. 0.5 0.5 of a run's start and its end is WiSE-FT
    # (arXiv:2109.01903)
    weights: tuple[float, ...] = ()
    # begin with the best run, and take in another only where the score on the held-out images does not sink
    # (arXiv:2203.05482)
    greedy: bool = False
    preset: str = ""  # the .py file of a task of one's own; it is run
    mesh: MeshConfig = field(default_factory=MeshConfig)
    batch_size: int = 32  # images at a time, for --greedy; scores do not depend on it

    def __post_init__(self) -> None:
        weights = self.weights
        some = all(0 <= weight < math.inf for weight in weights)
        expected = "numbers of 0 or more, which add up to 1"
        one = not weights or abs(math.fsum(weights) - 1) < SUM
        require(some and one, "--weights", weights, expected)
        chosen = f"{weights} with --greedy"
        require(not (weights and self.greedy), "--weights", chosen, "left out: greed weighs")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
