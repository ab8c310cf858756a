"""Floating-point operations of a row, by the formulas of fmjax/models/flops.py. Imports neither jax nor torch."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.gpu.cases import CLASSES, Model
from fmjax.models.flops import flops
from fmjax.names import get_spec


def forward_flops(model: Model) -> int:
    """Of one image to its embedding."""
    return flops(replace(get_spec(model.ours), image_size=(model.size, model.size))).forward


def training_flops(model: Model) -> int:
    """Of one image in a step that trains all parameters, with a classifier in the place of the projection."""
    spec = replace(get_spec(model.ours), image_size=(model.size, model.size), embed_dim=CLASSES)
    return flops(spec).training()
