"""The sizes of towers that several families share (arXiv:2010.11929 table 1, arXiv:2106.04560 table 2, and later)."""

from typing import TypedDict


class Size(TypedDict):
    width: int
    depth: int
    num_heads: int
    mlp_dim: int


TINY = Size(width=192, depth=12, num_heads=3, mlp_dim=768)
SMALL = Size(width=384, depth=12, num_heads=6, mlp_dim=1536)
BASE = Size(width=768, depth=12, num_heads=12, mlp_dim=3072)
LARGE = Size(width=1024, depth=24, num_heads=16, mlp_dim=4096)
SO400M = Size(width=1152, depth=27, num_heads=16, mlp_dim=4304)  # shape-optimised, arXiv:2305.13035
HUGE = Size(width=1280, depth=32, num_heads=16, mlp_dim=5120)
GIANT = Size(width=1408, depth=40, num_heads=16, mlp_dim=6144)
BIG_G = Size(width=1664, depth=48, num_heads=16, mlp_dim=8192)

# of gated MLPs, whose hidden width is two thirds of 4 times the width or near it
EVA_BASE = Size(width=768, depth=12, num_heads=12, mlp_dim=2048)
EVA_LARGE = Size(width=1024, depth=24, num_heads=16, mlp_dim=2730)
GATED_GIANT = Size(width=1536, depth=40, num_heads=24, mlp_dim=4096)  # DINOv2's
