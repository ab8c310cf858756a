"""How close is equal. Relative errors are of the largest value of a tensor."""

from __future__ import annotations

# The reference's own float32 is about 1e-6 of the largest value away from its float64; a deeper sum adds a few of
# these.
FORWARD = 2e-5
# Parameter gradients sum over every token and image on top of that.
GRADIENT = 5e-5
# bfloat16 has 8 bits: 0.4 % a number. Both sides round at other places, so one is held to a multiple of the other.
BFLOAT16_COSINE = 0.99
BFLOAT16_RATIO = 3.0
