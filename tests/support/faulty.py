"""A task that works, but for some of its steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import jax.numpy as jnp
from jax import Array

from fmjax.config.tasks import ClassifyConfig
from fmjax.models.dense import BatchNorm
from fmjax.tasks.classify import Classify
from fmjax.tasks.task import AVERAGES

Fault = Literal["loss", "gradient", "average", "leap"]


class Faulty(Classify):
    """Classification, whose loss, gradient or running average is NaN in some steps, or whose loss is 1,000 larger."""

    def parts(self, backbone, labels, rngs):
        return super().parts(backbone, labels, rngs) | {"seen": BatchNorm(1)}

    def loss(self, net, batch, now):
        value, logs = super().loss(net, batch, now)

        def wrong(fault: Fault) -> Array:
            number = now.step + 1
            rows = [
                (low <= number) & (number <= high)
                for name, low, high in self.config.faults
                if name == fault
            ]
            return jnp.any(jnp.asarray([False, *rows]))

        average = value[None] * jnp.where(wrong("average"), jnp.nan, 1)
        value = value * jnp.where(wrong("loss"), jnp.nan, 1) + jnp.where(wrong("leap"), 1_000, 0)
        # the root of 0 is 0, and its slope is none
        value = value - 1 + jnp.sqrt(jnp.where(wrong("gradient"), 0 * net["head"].kernel.sum(), 1))
        return value, logs | {AVERAGES: {"seen.mean": average}}


@dataclass(frozen=True, kw_only=True)
class FaultyConfig(ClassifyConfig):
    home = Faulty

    faults: tuple[tuple[Fault, int, int], ...] = ()  # what goes wrong, and its first and last step
