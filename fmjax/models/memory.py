"""Bytes that a backbone takes, counted from its spec. Imports no jax."""

from __future__ import annotations

from dataclasses import dataclass

from fmjax.models.flops import flops
from fmjax.specs import ViTSpec

FLOAT32 = 4
# the parameters, their gradients and AdamW's two moments, all float32 (arXiv:1910.02054 sec. 3.1, without its halves)
TRAINED = 4 * FLOAT32


@dataclass(frozen=True)
class Estimate:
    """Bytes, of all devices together: what a compiler adds (work space, copies) is not in them."""

    forward: int  # the parameters, float32
    probe: (
        int  # the same: embeddings are made once, and the classifier is fitted to them on the host
    )
    finetune: int  # all that full fine-tuning keeps from step to step, and the gradients
    image_least: int  # an image more in a step with --remat full: the input of every block, float32


def estimate(spec: ViTSpec) -> Estimate:
    """Of images of the spec's own size."""
    numbers = spec.parameters
    kept = spec.depth * flops(spec).tokens * spec.width
    forward = FLOAT32 * numbers
    return Estimate(forward, forward, TRAINED * numbers, FLOAT32 * kept)
