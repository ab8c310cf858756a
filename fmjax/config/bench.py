"""What is timed of a backbone."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Annotated, Literal, get_args

import tyro

from fmjax.config.checks import require
from fmjax.config.model import ModelConfig
from fmjax.config.switch import Switch

# a process's start comes first, while the device is free for another; products before what is compared with them
Kind = Literal["start", "product", "train", "forward", "attention", "weights", "input"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True, kw_only=True)
class BenchConfig:
    """Times a backbone on the first device, on pictures and parameters of noise."""

    model: Annotated[ModelConfig, tyro.conf.arg(prefix_name=True)] = field(
        default_factory=ModelConfig
    )
    # what is timed, in this order. start: a new process to its first embedding; product: of matrices, which show what
    # the device can do; train: a step of fine-tuning; forward: embeddings; attention: alone; weights: loading; input:
    # pictures to batches
    kinds: tuple[Kind, ...] = KINDS
    batch_size: int = 32  # images of a step
    # auto: cuDNN's kernels on GPUs of NVIDIA in bfloat16 and float16, on Hopper one in Pallas up to 400 tokens; else
    # XLA's products
    attention: Literal["auto", "xla", "cudnn", "pallas"] = "auto"
    # of blocks; auto: a kernel in Pallas on a GPU of NVIDIA in bfloat16 and float16, else XLA's
    norms: Literal["auto", "xla", "pallas"] = "auto"
    # of the MLPs of blocks; auto: a kernel in Pallas on a GPU of NVIDIA in bfloat16 and float16, else XLA's
    activations: Literal["auto", "xla", "pallas"] = "auto"
    # what blocks keep for the backward pass: everything, their products (dots, the fastest: auto), or their input
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    # trace every block instead of scanning over them; auto: up to 48 blocks on a device that is no CPU
    unroll: Switch = "auto"
    seconds: float = 2.0  # of one measurement, about; what takes longer is done once or a few times
    out: str = ""  # a .json file, written anew after each kind; "": none
    json: bool = False  # print the record for machines in the place of the table
    force: bool = False  # replace the file if it is there

    def __post_init__(self) -> None:
        require(len(self.kinds) > 0, "--kinds", self.kinds, f"some of {' '.join(KINDS)}")
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        require(0 < self.seconds < math.inf, "--seconds", self.seconds, "above 0, and finite")
