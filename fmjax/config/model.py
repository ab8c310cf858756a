"""Which backbone, and where its weights come from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from fmjax.config.checks import require
from fmjax.specs import Resample

Dtype = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """Which backbone, and where its weights come from."""

    name: str = "demo_vit_ti4.fashion_mnist"  # "arch.tag", see `fmjax models`
    # a file or folder instead of the published source: .safetensors, .pt, .pth, .bin, .ckpt or .npz
    checkpoint: Annotated[str, tyro.conf.arg(aliases=("--checkpoint",))] = ""
    dialect: str = ""  # how its tensors are named; "" tells by the keys
    offline: bool = False  # use only what is on this machine
    # random: the same network without its weights
    init: Literal["pretrained", "random"] = "pretrained"
    # (height, width) in pixels; (0, 0) is what the weights were evaluated at
    image_size: tuple[int, int] = (0, 0)
    # how the position table follows another image size
    resample: Literal["weights"] | Resample = "weights"
    # of the computation; parameters are float32. auto: bfloat16 where the device has it, float16 on a V100 or T4
    dtype: Dtype = "auto"

    def __post_init__(self) -> None:
        height, width = self.image_size
        require(
            (height > 0) == (width > 0) and height >= 0,
            "--model.image-size",
            self.image_size,
            "two sizes above 0",
        )
