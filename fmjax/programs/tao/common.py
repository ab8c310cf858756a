"""What specs of both releases say in other places: where the images lie, which backbone, how long."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from fmjax import names
from fmjax.config.data import ImagesConfig
from fmjax.data.folders import ROLES, Found, images, subfolders
from fmjax.data.sources import open_source
from fmjax.errors import UsageError, escaped, nearest
from fmjax.programs.tao.fields import BACKBONES
from fmjax.programs.tao.preset import Preset
from fmjax.programs.tao.spec import Spec

LINKED = "images"  # the folder of links to parts that are called otherwise
FROZEN = ((r"backbone\..*", 0.0),)


@dataclass(frozen=True)
class Asked:
    """What the command line says in the place of the spec; empty where it says nothing."""

    images: int = 0
    model: str = ""
    data: str = ""


def set_backbone(preset: Preset, kind: str, asked: Asked, *, tag: str = "") -> None:
    """The model of a backbone's name. Raises UsageError for one that fmjax has not."""
    if asked.model:
        # an architecture without published weights is no backbone to start from
        weights = names.get_weights(asked.model)
        preset.set("model.name", f"{weights.model}.{weights.tag}")
        return
    if kind not in BACKBONES:
        raise UsageError(
            f"the backbone is {escaped(kind, 60)!r}, which fmjax has not{nearest(kind, BACKBONES)}; "
            f"pass --model NAME, one of `fmjax models --pretrained`"
        )
    name = BACKBONES[kind]
    # open_clip's tag says which of the published weights are meant
    preset.set("model.name", names.resolve(f"{kind}.{tag}") if tag else name)


def set_checkpoint(preset: Preset, path: str, field: str) -> None:
    """The file that the backbone starts from."""
    if path:
        preset.set("model.checkpoint", path)
        return
    name = preset.values["model.name"]
    preset.differs.append(
        f"{field} is empty, so that TAO starts from random weights; this starts from the published ones of {name}; "
        f"init='random' does as TAO"
    )


def set_images(preset: Preset, asked: Asked, train: str, val: str) -> int:
    """Where the images lie; returns how many there are to train on.

    Raises UsageError where they are not on this machine and nothing tells their number.
    """
    # what the command line says counts; then the spec, whose folders may be on another machine
    if asked.data:
        config = ImagesConfig(source=asked.data)
        preset.set("data.source", asked.data)
        return asked.images or len(open_source(config).train)
    if not train:
        raise UsageError("the spec names no training images; pass --data folder:DIR")
    preset.set("data.source", f"folder:{_folder(preset, train, val)}")
    if asked.images:
        return asked.images
    if not Path(train).is_dir():
        raise UsageError(
            f"the spec's training images are in {escaped(train)!r}, which is not here, and their number tells how many "
            f"steps an epoch has; pass --images N, or --data folder:DIR"
        )
    found = _count(Path(train))
    if not found:
        raise UsageError(
            f"{escaped(train)!r} has no images in class folders; pass --data folder:DIR"
        )
    return found


def _folder(preset: Preset, train: str, val: str) -> str:
    """The folder that has both parts; where none has, that of links which a comment says how to make."""
    # names as they are known here, beside each other: the folder above is a set already
    ours, theirs = Path(train), Path(val)
    roles = tuple(ROLES.get(path.name.lower(), "") for path in (ours, theirs))
    if roles == ("train", "val") and ours.parent == theirs.parent:
        return str(ours.parent)
    if not val:
        preset.differs.append("the spec has no validation images, so that a fifth is held out")
        return train
    links = [
        f"ln -s {shlex.quote(os.path.abspath(path))} {LINKED}/{role}"
        for path, role in ((train, "train"), (val, "val"))
    ]
    preset.differs.append(
        f"the folders are not called train and val beside each other; two links make them one set: "
        f"mkdir {LINKED} && {' && '.join(links)}"
    )
    return LINKED


def _count(root: Path) -> int:
    found = Found(root)
    # a folder within a class is no set of its own here: only the number counts
    return sum(
        len(images(folder, found, check=lambda folder, inside: None))
        for folder in subfolders(root, found)
    )


def set_length(preset: Preset, *, epochs: int, epoch: int, save: int, score: int) -> None:
    """Steps in the place of epochs. epoch: its steps; save, score: the epochs between two."""
    preset.set("steps", epochs * epoch)
    # an interval beyond the run is the run
    preset.set("save_every", min(save, epochs) * epoch)
    preset.set("eval_every", min(score, epochs) * epoch)
    preset.differs.append(
        f"TAO keeps every checkpoint; this keeps the newest two and the best: keep={epochs // max(save, 1) or 1} keeps "
        f"all"
    )


def set_run(spec: Spec, preset: Preset, *, seed: int, deterministic: bool) -> None:
    """The run's folder, its seed, and whether it repeats its bits."""
    out = spec.text("train.results_dir") or spec.text("results_dir")
    preset.set("out", out or f"runs/{preset.values['model.name']}")
    # a negative one is TAO's word for none
    preset.set("seed", max(seed, 0))
    if deterministic:
        preset.set("deterministic", True)


def set_steps_of_lr(preset: Preset, at: list[float], factor: float) -> None:
    """A rate that falls at some shares of the run; a constant one where none lies within it."""
    within = tuple(round(share, 6) for share in at if 0 < share < 1)
    if not within:
        preset.set("recipe.schedule", "constant")
        return
    preset.set("recipe.schedule", "step")
    preset.set("recipe.step_at", within)
    preset.set("recipe.step_factor", factor)


def set_optimiser(
    preset: Preset, name: str, *, betas: tuple[float, ...], momentum: float, weight_decay: float
) -> None:
    """The optimiser of a name. Raises UsageError for one that fmjax has not."""
    # MMPretrain's names are those of torch's classes
    kind = name.lower()
    if kind not in ("adamw", "adam", "sgd", "lion"):
        raise UsageError(
            f"the optimiser is {escaped(name, 40)!r}, and a preset is made of adamw, adam, sgd or lion; change it in "
            f"the spec"
        )
    preset.set("recipe.optimiser", "adamw" if kind == "adam" else kind)
    if kind in ("adamw", "adam"):
        preset.set("recipe.b1", betas[0])
        preset.set("recipe.b2", betas[1])
    # it has momentum in torch, and AdamW has its betas
    if kind == "sgd":
        preset.set("recipe.momentum", momentum)
    preset.set("recipe.weight_decay", weight_decay)
    if kind in ("adam", "sgd") and weight_decay:
        preset.differs.append(
            f"TAO's {kind} adds the weight decay to the gradient; here it is decoupled, as AdamW's "
            f"(arXiv:1711.05101), and times the learning rate"
        )
