"""A spec of TAO 5, whose trainer was MMPretrain: a field after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

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

DATA = "dataset.data"
TRAIN = "train.train_config"
OPTIMIZER = f"{TRAIN}.optimizer"
SCHEDULE = f"{TRAIN}.lr_config"
FILES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")
# MMPretrain's own, where a pipeline is not given
PIPELINE = [{"type": "RandomResizedCrop"}, {"type": "RandomFlip", "prob": 0.5}]


def translate(spec: Spec, preset: Preset, asked: Asked) -> None:
    """Fills a preset. Raises UsageError for what cannot be had here."""
    _model(spec, preset, asked)
    train = spec.text(f"{DATA}.train.data_prefix")
    images = set_images(preset, asked, train, spec.text(f"{DATA}.val.data_prefix"))
    _data(spec, preset)
    _mixing(spec, preset)
    epoch = _length(spec, preset, images)
    _optimiser(spec, preset)
    _schedule(spec, preset, epoch)
    _run(spec, preset)


def _model(spec: Spec, preset: Preset, asked: Asked) -> None:
    kind = spec.text("model.backbone.type", "fan_tiny_8_p4_hybrid")
    inner = spec.text("model.backbone.custom_args.model_name", "ViT-B-32")
    # one class for all of open_clip's, which it makes by their name
    kind = inner if kind == "open_clip" else kind
    given = spec.text("model.backbone.pretrained")
    is_file = given.endswith(FILES) or "/" in given
    set_backbone(preset, kind, asked, tag="" if is_file else given)
    whole = spec.text("model.init_cfg.checkpoint") or spec.text(f"{TRAIN}.load_from")
    if is_file or whole:
        preset.set("model.checkpoint", given if is_file else whole)
    elif not given:
        set_checkpoint(preset, "", "model.backbone.pretrained")
    if spec.flag("model.backbone.freeze", False):
        preset.set("recipe.rates", FROZEN)
    # of all heads, the one that is no layer
    head = spec.text("model.head.type", "LinearClsHead")
    if head == "LogisticRegressionHead":
        preset.differs.append(
            f"{head} is fitted by scikit-learn to frozen embeddings: `fmjax probe {preset.values['model.name']} --c C` "
            f"does that; this preset trains a linear layer"
        )
    smoothing = spec.number("model.head.loss.label_smooth_val", 0.0)
    smooth = spec.text("model.head.loss.type") == "LabelSmoothLoss"
    preset.set("task.label_smoothing", smoothing * smooth)


def _data(spec: Spec, preset: Preset) -> None:
    preset.set("data.threads", max(spec.integer(f"{DATA}.workers_per_gpu", 2), 1))
    listed = spec.text(f"{DATA}.train.classes")
    if listed:
        preset.set("data.classes", listed)
    # what a pipeline has not is off
    preset.set("data.crop_scale", 1.0)
    preset.set("data.flip", 0.0)
    for step in _dicts(spec, f"{DATA}.train.pipeline", PIPELINE):
        kind = str(step.get("type"))
        change = CHANGES.get(kind)
        if change is None:
            preset.absent.append(f"{DATA}.train.pipeline: {kind}")
        else:
            change(preset, step)
    preset.differs.append(
        "images are resized and normalised as the weights' authors evaluate, whatever img_norm_cfg and the pipeline of "
        "test say"
    )


def _dicts(spec: Spec, path: str, default: Any = ()) -> list[Mapping[str, Any]]:
    """A list of mappings. Raises UsageError for anything else."""
    value = spec.get(path, default)
    if not isinstance(value, list | tuple) or not all(isinstance(one, dict) for one in value):
        shown = escaped(str(value), 60)
        raise UsageError(f"{spec.name}: {path} is {shown!r}; it must be a list of steps with types")
    return list(value)


def _number(step: Mapping[str, Any], names: tuple[str, ...], default: float) -> float:
    """The first of some names, as releases call one thing otherwise. Raises UsageError for no number."""
    found = next((step[name] for name in names if step.get(name) is not None), default)
    try:
        return float(found)
    except (TypeError, ValueError):
        shown = escaped(str(found), 60)
        raise UsageError(
            f"{step.get('type')} has {names[0]} {shown!r}; it must be a number"
        ) from None


def _crop(preset: Preset, step: Mapping[str, Any]) -> None:
    """RandomResizedCrop, whose share of the area is called scale or crop_ratio_range."""
    ranges = [step.get(name) for name in ("crop_ratio_range", "scale")]
    shares = next((one for one in ranges if isinstance(one, list | tuple)), None) or (0.08, 1.0)
    # a size is called scale too, in later releases
    least = _number({"type": step.get("type"), "scale": shares[0]}, ("scale",), 0.08)
    preset.set("data.crop_scale", least if 0 < least <= 1 else 0.08)
    sizes = [_size(step.get(name)) for name in ("size", "scale")]
    size = next(filter(None, sizes), None)
    if size:
        preset.set("model.image_size", size)


def _size(found: Any) -> tuple[int, int] | None:
    """(height, width), as one number or two; None for what is no size, as shares of an area are not."""
    both = [found, found] if isinstance(found, int) else found
    if not isinstance(both, list | tuple) or len(both) != 2:
        return None
    if not all(isinstance(side, int) and side > 1 for side in both):
        return None
    return both[0], both[1]


def _flip(preset: Preset, step: Mapping[str, Any]) -> None:
    # a pipeline may have one of each
    up = step.get("direction", "horizontal") == "vertical"
    probability = _number(step, ("flip_prob", "prob"), 0.5)
    preset.set("data.vertical_flip" if up else "data.flip", probability)


def _colour(preset: Preset, step: Mapping[str, Any]) -> None:
    names = ("brightness", "contrast", "saturation", "hue")
    values = [_number(step, (name,), 0.0) for name in names]
    preset.set("data.color_jitter", (*(min(value, 1.0) for value in values[:3]), values[3]))


def _erase(preset: Preset, step: Mapping[str, Any]) -> None:
    preset.set("data.erase", _number(step, ("erase_prob",), 0.5))
    filled = "const" if step.get("mode", "const") == "const" else "pixel"
    preset.set("data.erase_fill", filled)


# of MMPretrain's steps, what each does here
CHANGES: dict[str, Callable[[Preset, Mapping[str, Any]], None]] = {
    "RandomResizedCrop": _crop,
    "RandomFlip": _flip,
    "ColorJitter": _colour,
    "RandomErasing": _erase,
}


def _mixing(spec: Spec, preset: Preset) -> None:
    # BatchMixup in the older releases, Mixup in the later ones
    for step in _dicts(spec, "model.train_cfg.augments"):
        name = str(step.get("type")).removeprefix("Batch").lower()
        if name in ("mixup", "cutmix"):
            preset.set(f"task.{name}", _number(step, ("alpha",), 1.0))
        else:
            preset.absent.append(f"model.train_cfg.augments: {step.get('type')}")


def _length(spec: Spec, preset: Preset, images: int) -> int:
    """Sets batch and steps, and returns how many steps an epoch has."""
    devices = max(spec.integer("train.num_gpus", 1), 1)
    batch = max(spec.integer(f"{DATA}.samples_per_gpu", 1), 1) * devices
    preset.set("batch_size", batch)
    # the last batch of an epoch is left out, unless it is the only one
    epoch = max(images // batch, 1)
    set_length(
        preset,
        epochs=max(spec.integer(f"{TRAIN}.runner.max_epochs", 20), 1),
        epoch=epoch,
        save=max(spec.integer(f"{TRAIN}.checkpoint_config.interval", 1), 1),
        score=max(spec.integer(f"{TRAIN}.evaluation.interval", 1), 1),
    )
    preset.set("log_every", max(spec.integer(f"{TRAIN}.logging.interval", 1000), 1))
    return epoch


def _optimiser(spec: Spec, preset: Preset) -> None:
    set_optimiser(
        preset,
        spec.text(f"{OPTIMIZER}.type", "AdamW"),
        betas=spec.numbers(f"{OPTIMIZER}.betas", (0.9, 0.999), least=2),
        momentum=spec.number(f"{OPTIMIZER}.momentum", 0.0),
        weight_decay=spec.number(f"{OPTIMIZER}.weight_decay", 0.01),
    )
    preset.set("recipe.lr", spec.number(f"{OPTIMIZER}.lr", 1e-3))
    preset.set("recipe.clip_norm", spec.number(f"{TRAIN}.optimizer_config.grad_clip.max_norm", 0.0))
    # MMPretrain decays all that no paramwise_cfg leaves out
    if not spec.has(f"{TRAIN}.paramwise_cfg"):
        preset.set("recipe.decay", ((r".*", 1.0),))
    for hook in _dicts(spec, f"{TRAIN}.custom_hooks"):
        if hook.get("type") == "EMAHook":
            preset.set("recipe.ema", round(1 - _number(hook, ("momentum",), 2e-4), 9))
            preset.set("recipe.ema_warmup", False)
        else:
            preset.absent.append(f"{TRAIN}.custom_hooks: {hook.get('type')}")


def _schedule(spec: Spec, preset: Preset, epoch: int) -> None:
    policy = spec.text(f"{SCHEDULE}.policy") or spec.text(f"{SCHEDULE}.type", "CosineAnnealing")
    epochs = max(spec.integer(f"{TRAIN}.runner.max_epochs", 20), 1)
    # a rate here is a part of the highest one
    lr = spec.number(f"{OPTIMIZER}.lr", 1e-3)
    if lr <= 0:
        raise UsageError(f"{spec.name}: {OPTIMIZER}.lr is {lr:g}; it must be above 0")
    floor = spec.number(f"{SCHEDULE}.min_lr", 0.0) / lr
    steps = spec.get(f"{SCHEDULE}.step", ())
    gamma = spec.number(f"{SCHEDULE}.gamma", 0.1)
    warmup = spec.integer(f"{SCHEDULE}.warmup_iters", 0)
    by_epoch = spec.flag(f"{SCHEDULE}.warmup_by_epoch", False)
    preset.set("recipe.warmup_steps", warmup * epoch if by_epoch else warmup)
    kind = policy.lower()
    # the names of both of MMPretrain's generations begin alike
    if kind.startswith("cosine"):
        preset.set("recipe.schedule", "cosine")
        preset.set("recipe.final_lr", min(round(floor, 9), 1.0))
    elif kind.startswith(("poly", "linear")):
        preset.set("recipe.schedule", "linear")
        preset.set("recipe.final_lr", min(round(floor, 9), 1.0))
    elif kind in ("step", "multisteplr", "steplr"):
        every = steps if isinstance(steps, list | tuple) else [steps]
        set_steps_of_lr(preset, [float(at) / epochs for at in every], gamma)
    else:
        raise UsageError(
            f"{spec.name}: {SCHEDULE}.policy is {escaped(policy, 30)!r}, and a preset has cosine, linear or step"
        )


def _run(spec: Spec, preset: Preset) -> None:
    seed = spec.integer("train.exp_config.manual_seed", 47)
    same_bits = spec.flag("train.exp_config.deterministic", False)
    set_run(spec, preset, seed=seed, deterministic=same_bits)
