"""A run, and what is asked of one."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Annotated, Literal

import tyro

from fmjax.config.checks import MAX_SEED, check_source, require
from fmjax.config.data import DataConfig
from fmjax.config.hosts import HostsConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import Recipe
from fmjax.config.switch import Switch
from fmjax.config.tasks import ClassifyConfig, TaskConfig
from fmjax.specs import DropPathBy

Tracker = Literal["tensorboard", "wandb", "mlflow", "trackio"]
OPTION = re.compile(r"(xla_[a-z0-9_]+)=(\S+)", re.ASCII)  # of XLA's compiler
PROJECT = re.compile(r"[\w.-]{1,100}", re.ASCII)  # what all tools take
STEPS = re.compile(r"(\d{1,9}):(\d{1,9})", re.ASCII)
MAX_PROFILED = 100  # of a step a trace has megabytes
MAX_SIMULATED = 1_024  # each has threads of its own


@dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """How many devices each axis has. One may be -1: the devices that the others leave."""

    data: int = -1  # copies of the model
    fsdp: int = 1  # parts that each copy's parameters and optimiser state are split into
    tensor: int = 1  # parts that heads and hidden units are split into
    # so many devices out of this machine's CPU, to try a mesh; 0: the devices that there are
    simulate_devices: Annotated[int, tyro.conf.arg(aliases=("--simulate-devices",))] = 0

    def __post_init__(self) -> None:
        count = self.simulate_devices
        require(0 <= count <= MAX_SIMULATED, "--simulate-devices", count, f"0 to {MAX_SIMULATED}")


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """A fine-tuning run."""

    out: str = "runs/finetune"  # the run's folder; running again with the same one resumes
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    task: TaskConfig = field(default_factory=ClassifyConfig)
    recipe: Recipe = field(default_factory=Recipe)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    # the folder of a finished run of the same model and classes whose head this one starts with (LP-FT)
    head_from: str = ""
    steps: int = 200  # of the optimiser, in all
    batch_size: int = 64  # images in a step, over all devices
    # auto: in as few parts (recipe.accumulate) as fit the devices' memory, whatever they are; batch_size stays
    batch: Literal["given", "auto"] = "given"
    memory_gib: float = 0.0  # of one device, for --batch auto and --dry-run; 0: as it says itself
    drop_path: float = 0.0  # of the last block; blocks before it drop less (arXiv:1603.09382)
    # image: each by a draw of its own. subset: every block has that rate, and computes its branches for so many images
    # of each device less, as DINOv2 trains: a rate of 0.4 takes two thirds of the time
    drop_path_by: DropPathBy = "image"
    # auto: cuDNN's kernels on GPUs of NVIDIA in bfloat16 and float16, on Hopper one in Pallas up to 400 tokens; else
    # XLA's products
    attention: Literal["auto", "xla", "cudnn", "pallas"] = "auto"
    # of blocks; auto: a kernel in Pallas on GPUs of NVIDIA in bfloat16 and float16, else XLA's
    norms: Literal["auto", "xla", "pallas"] = "auto"
    # of the MLPs of blocks; auto: a kernel in Pallas on GPUs of NVIDIA in bfloat16 and float16, else XLA's
    activations: Literal["auto", "xla", "pallas"] = "auto"
    # what blocks keep for the backward pass: everything, their products (dots, the fastest: auto), or their input
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    # trace every block instead of scanning over them; auto: up to 48 blocks where devices are no CPUs, but where
    # parameters are split (mesh.fsdp) and remat is full: that is the way of least memory
    unroll: Switch = "auto"
    eval_every: int = 100  # steps between two scores of the validation part
    save_every: int = 100  # steps between two checkpoints
    log_every: int = 10  # steps between two rows of metrics.jsonl
    # tools that get the rows of metrics.jsonl too; each needs its package: pip install 'fmjax[wandb]'
    log: tuple[Tracker, ...] = ()
    log_project: str = "fmjax"  # of W&B and Trackio, and the experiment of MLflow
    # FIRST:LAST, steps whose trace is written for xprof, both included; "": none
    profile_steps: str = ""
    keep: int = 2  # checkpoints, the newest ones
    keep_best: bool = True  # also the one with the best score, which is what the run hands out
    fallback: bool = True  # where a checkpoint is damaged, go on from the newest whole one
    # go back to this checkpoint, with another recipe if need be; 0 is the newest
    from_step: int = 0
    deterministic: bool = False  # the same bits on a GPU each time, as on other devices, for speed
    # options of XLA's compiler for the run's own programs, as xla_gpu_enable_latency_hiding_scheduler=true; one that it
    # does not know is left out
    compiler_options: tuple[str, ...] = ()
    seed: int = 0  # of new parameters, drop path and the order of the images
    compare_random: bool = False  # also train the same model from random weights, and print both
    # dialect of the file that is written at the end
    export: Literal["timm", "open_clip_timm", "none"] = "timm"
    # also write report.html at the end, without the pictures that need the model
    report: bool = True
    # start over: the run's checkpoints are deleted and its records written anew
    fresh: bool = False
    dry_run: bool = False  # say what the run would take, and neither read weights nor write

    def __post_init__(self) -> None:
        # each flag by itself, then what several of them say together
        for name in ("steps", "batch_size", "eval_every", "save_every", "log_every", "keep"):
            require(
                getattr(self, name) >= 1,
                f"--{name.replace('_', '-')}",
                getattr(self, name),
                "1 or more",
            )
        back = self.from_step > 0 and not self.fresh
        require(
            back or self.from_step == 0, "--from-step", self.from_step, "a step, without --fresh"
        )
        gib = self.memory_gib
        require(0 <= gib < math.inf, "--memory-gib", gib, "above 0, or 0 for what the device says")
        require(0 <= self.seed <= MAX_SEED, "--seed", self.seed, f"0 to {MAX_SEED}")
        require(0 <= self.drop_path < 1, "--drop-path", self.drop_path, "0 or more, below 1")
        dropped = self.drop_path > 0 or self.drop_path_by == "image"
        require(dropped, "--drop-path-by", self.drop_path_by, "image without --drop-path")
        parts = self.recipe.accumulate
        divides = self.batch_size % parts == 0
        require(
            divides, "--batch-size", self.batch_size, f"a multiple of --recipe.accumulate {parts}"
        )
        project, tools = self.log_project, self.log
        require(len(set(tools)) == len(tools), "--log", " ".join(tools), "each tool once")
        known = PROJECT.fullmatch(project) is not None
        require(known, "--log-project", project, "1 to 100 letters, digits, '.', '_' or '-'")
        self._check_options()
        asked = self.profiled
        fits = not self.profile_steps or (0 < len(asked) <= MAX_PROFILED and asked[0] > 0)
        spelled = f"FIRST:LAST, from 1 on, at most {MAX_PROFILED} steps"
        require(fits, "--profile-steps", self.profile_steps, spelled)
        self.task.check_data(self.data)
        if self.export != "none":
            self.task.check_export(self.export)

    def _check_options(self) -> None:
        found = [OPTION.fullmatch(option) for option in self.compiler_options]
        names = [option[1] for option in found if option is not None]
        spelled = len(set(names)) == len(self.compiler_options)
        told = " ".join(self.compiler_options)
        require(spelled, "--compiler-options", told, "xla_NAME=VALUE, each name once")

    @property
    def profiled(self) -> range:
        """The steps to profile; an empty range where none are, or where they cannot be read."""
        found = STEPS.fullmatch(self.profile_steps)
        return range(int(found[1]), int(found[2]) + 1) if found else range(0)


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """A fine-tuned run on the validation part of its own data, or of another source with the same classes."""

    # instead of the run's own data: as --data.source of a run
    source: Annotated[str, tyro.conf.arg(aliases=("--data.source",))] = ""
    preset: str = ""  # the .py file of a task of one's own; it is run
    mesh: MeshConfig = field(default_factory=MeshConfig)
    hosts: HostsConfig = field(default_factory=HostsConfig)
    step: int = -1  # of the checkpoint; -1 is the best of those that are kept
    batch_size: int = 32  # images at a time, over all devices; scores do not depend on it

    def __post_init__(self) -> None:
        require(self.batch_size >= 1, "--batch-size", self.batch_size, "1 or more")
        require(self.step >= -1, "--step", self.step, "a step, or -1 for the best")
        if self.source:
            check_source(self.source)
