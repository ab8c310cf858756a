"""A spec of TAO 6: a field after the other. What the spec leaves out has TAO's own default."""

from __future__ import annotations

import math
from pathlib import Path

from fmjax import names
from fmjax.errors import UsageError, escaped
from fmjax.programs.tao.common import (
    FROZEN,
    Asked,
    set_backbone,
    set_checkpoint,
    set_images,
    set_length,
    set_optimiser,
    set_run,
    set_steps_of_lr,
)
from fmjax.programs.tao.preset import Preset
from fmjax.programs.tao.spec import Spec

AUGMENT = "dataset.augmentation"
OPTIM = "train.optim"
DTYPES = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
QUARTERS = (90.0, 180.0, 270.0)


def translate(spec: Spec, preset: Preset, asked: Asked) -> None:
    """Fills a preset. Raises UsageError for what cannot be had here."""
    # the model first: what the images need depends on it; then how many there are, which tells the steps
    _model(spec, preset, asked)
    train = spec.text("dataset.train_dataset.images_dir")
    images = set_images(preset, asked, train, spec.text("dataset.val_dataset.images_dir"))
    _data(spec, preset)
    _augmentation(spec, preset)
    _mixing(spec, preset)
    epoch = _length(spec, preset, images)
    _optimiser(spec, preset)
    _schedule(spec, preset, epoch)
    _run(spec, preset)


def _model(spec: Spec, preset: Preset, asked: Asked) -> None:
    set_backbone(preset, spec.text("model.backbone.type", "fan_small_12_p4_hybrid"), asked)
    field = "model.backbone.pretrained_backbone_path"
    set_checkpoint(preset, spec.text(field), field)
    # TAO's images are square
    size = spec.integer("dataset.img_size", 224)
    preset.set("model.image_size", (size, size))
    precision = spec.text("train.precision", "fp32").lower()
    if precision not in DTYPES:
        raise UsageError(
            f"{spec.name}: train.precision is {escaped(precision, 20)!r}; it must be {', '.join(DTYPES)}"
        )
    preset.set("model.dtype", DTYPES[precision])
    if spec.flag("model.backbone.freeze_backbone", False):
        preset.set("recipe.rates", FROZEN)
    preset.set("task.label_smoothing", spec.number("model.head.loss.label_smooth_val", 0.0))


def _data(spec: Spec, preset: Preset) -> None:
    preset.set("data.threads", max(spec.integer("dataset.workers", 8), 1))
    # TAO writes the file where there is none, with the names in their order, which is ours too
    listed = Path(spec.text("dataset.root_dir") or ".") / "classes.txt"
    if spec.text("dataset.root_dir") and listed.is_file():
        preset.set("data.classes", str(listed))
    _preparation(spec, preset)


def _preparation(spec: Spec, preset: Preset) -> None:
    """Says where images are brought to the network otherwise than in TAO: as the weights' own authors do."""
    # said only where it is so: NVIDIA's own rows are prepared as TAO does
    mean = spec.numbers(f"{AUGMENT}.mean", IMAGENET[0], least=3)
    std = spec.numbers(f"{AUGMENT}.std", IMAGENET[1], least=3)
    weights = names.get_weights(preset.values["model.name"])
    if (mean, std) != (tuple(weights.mean), tuple(weights.std)):
        preset.differs.append(
            f"images are normalised as the weights were trained, by the mean {_shown(weights.mean)} and std "
            f"{_shown(weights.std)}, not by the spec's {_shown(mean)} and {_shown(std)}; TAO takes ImageNet's for "
            f"every backbone, CLIP too, where the spec has none"
        )
    if weights.resize_mode != "squash":
        preset.differs.append(
            "images keep their shape, as the weights' authors evaluate; TAO squashes each to a square first"
        )


def _shown(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _augmentation(spec: Spec, preset: Preset) -> None:
    # whatever the spec leaves out is on in TAO, with these numbers
    flips = _part(spec, "random_flip", {"hflip_probability": 0.5, "vflip_probability": 0.5})
    preset.set("data.flip", flips["hflip_probability"])
    preset.set("data.vertical_flip", flips["vflip_probability"])
    turns = _part(spec, "random_rotate", {"rotate_probability": 0.5})
    preset.set("data.quarter_turn", turns["rotate_probability"])
    angles = spec.numbers(f"{AUGMENT}.random_rotate.angle_list", QUARTERS)[:3]
    if turns["rotate_probability"] and sorted(angles) != sorted(QUARTERS):
        preset.differs.append(
            f"images are turned by 90, 180 or 270 degrees, not by {_shown(angles)}; rotation=DEGREES turns by any angle"
        )
    _colour(spec, preset)
    erased = _part(spec, "random_erase", {"erase_probability": 0.2})
    preset.set("data.erase", erased["erase_probability"])
    preset.set("data.erase_fill", "const")
    if spec.flag(f"{AUGMENT}.random_aug.enable", True):
        # rand-n2-m5-mstd1.0, TAO's only setting (dataloader/rand_aug.py)
        preset.set("data.rand_ops", 2)
        preset.set("data.rand_magnitude", 5.0)
        preset.set("data.rand_std", 1.0)
    _crop(spec, preset)
    if spec.flag(f"{AUGMENT}.with_random_blur", True):
        preset.absent.append(f"{AUGMENT}.with_random_blur: images are not blurred")


def _part(spec: Spec, name: str, defaults: dict[str, float]) -> dict[str, float]:
    """The numbers of one kind of change; zeros where it is switched off."""
    on = spec.flag(f"{AUGMENT}.{name}.enable", True)
    # asked for all the same, so that no field of a part that is off is called unknown
    found = {key: spec.number(f"{AUGMENT}.{name}.{key}", value) for key, value in defaults.items()}
    return {key: value * on for key, value in found.items()}


def _colour(spec: Spec, preset: Preset) -> None:
    defaults = {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.0}
    *factors, hue = _part(spec, "random_color", defaults).values()
    if max(factors) > 1:
        preset.differs.append(
            f"the colours change by factors of at most 1, where the spec has {max(factors):g}"
        )
    preset.set("data.color_jitter", (*(min(factor, 1.0) for factor in factors), hue))


def _crop(spec: Spec, preset: Preset) -> None:
    scaled = spec.flag(f"{AUGMENT}.with_scale_random_crop.enable", True)
    largest = max(
        spec.numbers(f"{AUGMENT}.with_scale_random_crop.scale_range", (1.0, 1.2), least=1)
    )
    if spec.flag(f"{AUGMENT}.with_random_crop", True):
        # torchvision's default, which TAO names
        preset.set("data.crop_scale", 0.08)
        if scaled:
            preset.absent.append(
                f"{AUGMENT}.with_scale_random_crop: the random crop is not scaled and cropped again"
            )
        return
    # an image that is scaled by so much and cropped to its size loses as much of its area
    preset.set("data.crop_scale", round(1 / max(largest, 1.0) ** 2, 4) if scaled else 1.0)


def _mixing(spec: Spec, preset: Preset) -> None:
    alpha = spec.number(f"{AUGMENT}.mixup_alpha", 0.4)
    if spec.flag(f"{AUGMENT}.mixup_cutmix", False):
        # every batch is mixed, by the one or the other
        for name, value in (("mixup", alpha), ("cutmix", alpha), ("mix_prob", 1.0)):
            preset.set(f"task.{name}", value)


def _length(spec: Spec, preset: Preset, images: int) -> int:
    """Sets batch and steps, and returns how many steps an epoch has."""
    devices = spec.integer("train.num_gpus", 1) * spec.integer("train.num_nodes", 1)
    batch = spec.integer("dataset.batch_size", 8)
    for path, value in (("train.num_gpus", devices), ("dataset.batch_size", batch)):
        if value < 1:
            raise UsageError(f"{spec.name}: {path} is {value}; it must be 1 or more")
    preset.set("batch_size", batch * devices)
    # each GPU has its own part of the images, and its last batch may be smaller
    epoch = math.ceil(math.ceil(images / devices) / batch)
    set_length(
        preset,
        epochs=max(spec.integer("train.num_epochs", 10), 1),
        epoch=epoch,
        save=max(spec.integer("train.checkpoint_interval", 1), 1),
        score=max(spec.integer("train.validation_interval", 1), 1),
    )
    return epoch


def _optimiser(spec: Spec, preset: Preset) -> None:
    name = spec.text(f"{OPTIM}.optim", "adamw")
    betas = spec.numbers(f"{OPTIM}.betas", (0.9, 0.999), least=2)
    if name == "adam":
        betas = (0.9, 0.999)  # torch's own, as TAO passes none
    decay = spec.number(f"{OPTIM}.weight_decay", 0.01)
    momentum = spec.number(f"{OPTIM}.momentum", 0.9)
    preset.set("recipe.lr", spec.number(f"{OPTIM}.lr", 6e-5))
    set_optimiser(preset, name, betas=betas, momentum=momentum, weight_decay=decay)
    preset.set("recipe.clip_norm", spec.number("train.clip_grad_norm", 2.0))
    # an average from the first step on, without a warm-up (core/callbacks/ema.py)
    share = spec.number("train.ema_decay", 0.998)
    if spec.flag("train.enable_ema", False):
        preset.set("recipe.ema", share)
        preset.set("recipe.ema_warmup", False)
    _decay(spec, preset)


def _decay(spec: Spec, preset: Preset) -> None:
    """Which parameters decay: all whose torch name has none of the spec's words in it."""
    # parts of torch's names, such as blocks.0.norm1.weight
    words = spec.words(f"{OPTIM}.skip_names")
    usual = any("norm" in word or "bias" in word for word in words)
    if not usual:
        # what the field leaves out by custom decays too
        preset.set("recipe.decay", ((r".*", 1.0),))
        preset.differs.append(
            "norms, biases, tokens and tables decay too, as in TAO where train.optim.skip_names does not name them; "
            "leave out the field decay for matrices alone"
        )
        return
    preset.differs.append(
        f"matrices decay, and no bias, norm, token or table; TAO leaves out names with {', '.join(words)} in them"
    )


def _schedule(spec: Spec, preset: Preset, epoch: int) -> None:
    policy = spec.text(f"{OPTIM}.policy", "linear").lower()
    epochs = max(spec.integer("train.num_epochs", 10), 1)
    step = spec.number(f"{OPTIM}.policy_params.step_size", 30.0)
    gamma = spec.number(f"{OPTIM}.policy_params.gamma", 0.1)
    milestones = spec.numbers(f"{OPTIM}.policy_params.milestones", (10.0, 20.0))
    warmup = spec.integer(f"{OPTIM}.warmup_epochs", 0)
    preset.set("recipe.warmup_steps", warmup * epoch if policy == "cosine" else 0)
    if warmup and policy != "cosine":
        preset.ignored.append(
            f"{OPTIM}.warmup_epochs: read with the policy cosine only (model/classifier_pl_model.py)"
        )
    # a table of policies, each with what it sets
    if policy == "cosine":
        preset.set("recipe.schedule", "cosine")
        preset.set("recipe.final_lr", 0.0)
    elif policy == "linear":
        preset.set("recipe.schedule", "linear")
        preset.set("recipe.final_lr", round(1 / (epochs + 1), 6))
    elif policy == "step":
        number = int(epochs / max(step, 1))
        set_steps_of_lr(preset, [k * step / epochs for k in range(1, number + 1)], gamma)
    elif policy == "multistep":
        set_steps_of_lr(preset, [epoch / epochs for epoch in milestones], gamma)
    else:
        raise UsageError(
            f"{spec.name}: {OPTIM}.policy is {escaped(policy, 30)!r}; it must be linear, step, multistep or cosine"
        )


def _run(spec: Spec, preset: Preset) -> None:
    seed = spec.integer("train.seed", 1234)
    same_bits = spec.flag("train.cudnn.deterministic", False)
    set_run(spec, preset, seed=seed, deterministic=same_bits)
