"""A run's folder: what is in it, and the model out of it."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

import jax
from flax import nnx
from jax.sharding import Mesh

from fmjax import specs
from fmjax.checkpoint import Checkpoints
from fmjax.config import FinetuneConfig, ModelConfig
from fmjax.errors import CheckpointError, UsageError
from fmjax.factory import ImageSize, Options, abstract, compute_dtype, initialise, leaf_shardings, resized
from fmjax.models.vit import ViT, join_blocks, split_blocks
from fmjax.optim import UNUSED, Freeze, frozen
from fmjax.params import flat, leaf_paths, nested
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.progress import write_atomically
from fmjax.serial import from_dict, to_json
from fmjax.weights import load, published

CONFIG, CLASSES, SPEC = "config.json", "classes.json", "spec.json"
# what a rerun may change: the rest would make the resumed run another one
SAFE_DATA = ("data_dir", "threads", "max_bad")
SAFE_MODEL = ("checkpoint", "offline")
SAFE = (
    "out",
    "mesh",
    "steps",
    "eval_every",
    "save_every",
    "log_every",
    "keep",
    "compare_random",
    "export",
    "fresh",
    "remat",
    "unroll",
)


def image_size(config: FinetuneConfig) -> ImageSize:
    """(height, width) that the run feeds the network."""
    return preprocessing(config).image_size


def preprocessing(config: FinetuneConfig) -> PreprocessConfig:
    return preprocess_config(config.model.name, asked_size(config.model))


def asked_size(config: ModelConfig) -> ImageSize | None:
    """The image size that the config asks for; None is the weights' own."""
    return config.image_size if config.image_size != (0, 0) else None


def model_options(config: FinetuneConfig, num_classes: int, mesh: Mesh | None) -> Options:
    return Options(
        num_classes=num_classes,
        classifier=config.classifier,
        drop_path=config.drop_path,
        remat=config.remat,
        unroll=config.unroll,
        dtype=compute_dtype(config.model.dtype),
        mesh=mesh,
    )


def build(config: FinetuneConfig, num_classes: int, mesh: Mesh | None) -> ViT:
    """The model that a run starts from, its position table resized to the run's images, on the mesh."""
    options = model_options(config, num_classes, mesh)
    return build_model(config.model, image_size(config), nnx.Rngs(config.seed), **options)


def build_model(config: ModelConfig, size: ImageSize, rngs: nnx.Rngs | None = None, **options: Unpack[Options]) -> ViT:
    """The model of a config for images of a size, with its weights or random ones."""
    if config.init == "random":
        return initialise(_final_spec(config, size), rngs, **options)
    return load(
        config.name,
        checkpoint=config.checkpoint or None,
        dialect=config.dialect or None,
        resample=None if config.resample == "weights" else config.resample,
        offline=config.offline,
        rngs=rngs,
        image_size=size,
        **options,
    )


def _final_spec(config: ModelConfig, size: ImageSize) -> specs.ViTSpec:
    spec = published(config.name, config.checkpoint or None)[1]
    return resized(spec if config.resample == "weights" else replace(spec, resample=config.resample), size)


def _run_spec(run: Path, config: FinetuneConfig) -> specs.ViTSpec:
    """The spec that a run was trained with."""
    if not (run / SPEC).is_file():
        return _final_spec(config.model, image_size(config))
    return from_dict(specs.ViTSpec, json.loads((run / SPEC).read_text()))


def freezing(config: FinetuneConfig, model: ViT) -> Freeze:
    """Which parameters of a run's model are not trained."""
    shapes = {path: leaf.shape for path, leaf in flat(model).items()}
    unused = UNUSED[config.classifier == "pool"]
    return frozen(shapes, (*config.optim.freeze, *unused), model.spec.depth)


def restore(run: str | Path, step: int | None = None, *, mesh: Mesh | None = None) -> ViT:
    """The model of a fine-tuned run, classifier included, at its newest or a given step.

    Raises CheckpointError where the folder holds no run or no such step.
    """
    config, classes = read_run(Path(run))
    checkpoints = Checkpoints(Path(run))
    wanted = checkpoints.latest() if step is None else step
    if wanted is None:
        raise CheckpointError(f"{run} has no checkpoint yet; run the same `fmjax finetune` command to go on")
    outline = abstract(_run_spec(Path(run), config), **model_options(config, len(classes), mesh))
    blocks = freezing(config, outline).blocks
    split = jax.eval_shape(lambda m: split_blocks(m, blocks), outline) if blocks else outline
    leaves = flat(checkpoints.restore_params(wanted, nested(_with_shardings(split, mesh))))
    checkpoints.close()
    return join_blocks(jax.tree.unflatten(jax.tree.structure(split), [leaves[path] for path in leaf_paths(split)]))


def _with_shardings(model: ViT, mesh: Mesh | None) -> dict[str, jax.ShapeDtypeStruct]:
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = leaf_shardings(model, mesh) or [one] * len(leaf_paths(model))
    leaves = jax.tree.leaves(model)
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for path, leaf, sharding in zip(leaf_paths(model), leaves, shardings, strict=True)
    }


def read_run(run: Path) -> tuple[FinetuneConfig, tuple[str, ...]]:
    """The config and the class names of a run."""
    if not (run / CONFIG).is_file() or not (run / CLASSES).is_file():
        raise CheckpointError(f"{run} is not the folder of a run: it has no {CONFIG} and {CLASSES}")
    try:
        config, classes = (json.loads((run / name).read_text()) for name in (CONFIG, CLASSES))
    except ValueError as error:
        raise CheckpointError(f"{CONFIG} or {CLASSES} in {run} is damaged: {error}; start over with --fresh") from error
    return from_dict(FinetuneConfig, config), tuple(classes)


def write_run(run: Path, config: FinetuneConfig, classes: tuple[str, ...], spec: specs.ViTSpec) -> None:
    """Writes the config, the classes and the spec; a fresh run's old checkpoints go first."""
    if config.fresh:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
    run.mkdir(parents=True, exist_ok=True)
    write_atomically(run / CLASSES, json.dumps(classes, indent=2) + "\n")
    write_atomically(run / SPEC, to_json(spec) + "\n")
    write_atomically(run / CONFIG, to_json(config) + "\n")


def check_same(run: Path, config: FinetuneConfig, classes: tuple[str, ...]) -> None:
    """Raises UsageError, with the fields that differ, where the command would not continue the run that is there."""
    if config.fresh or not (run / CONFIG).is_file() or not any((run / "checkpoints").glob("*")):
        return
    old, old_classes = read_run(run)
    neutral: dict[str, Any] = {name: getattr(config, name) for name in SAFE}
    neutral["data"] = replace(old.data, **{name: getattr(config.data, name) for name in SAFE_DATA})
    neutral["model"] = replace(old.model, **{name: getattr(config.model, name) for name in SAFE_MODEL})
    before, after = json.loads(to_json(replace(old, **neutral))), json.loads(to_json(config))
    changed = _differences(before, after)
    if old_classes != classes:
        changed.append(f"classes: {len(old_classes)} -> {len(classes)}")
    if changed:
        raise UsageError(
            f"{run} holds a run with other settings ({'; '.join(changed)}); pass another --out, or --fresh to "
            f"start it over"
        )


def check_spec(run: Path, config: FinetuneConfig, spec: specs.ViTSpec) -> None:
    """Raises UsageError where a run would go on with another function: its file is another publisher's."""
    if config.fresh or not (run / SPEC).is_file() or not any((run / "checkpoints").glob("*")):
        return
    changed = _differences(json.loads((run / SPEC).read_text()), json.loads(to_json(spec)))
    if changed:
        raise UsageError(
            f"{run} was trained with a model that computes otherwise ({'; '.join(changed)}), because its weights came "
            f"from another file; pass the old --model.checkpoint and --model.dialect, or --fresh to start it over"
        )


def _differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    out = []
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before[name], dict):
            out += _differences(before[name], value, f"{prefix}{name}.")
        elif before[name] != value:
            out.append(f"{prefix}{name}: {before[name]!r} -> {value!r}")
    return out
