"""A run's folder: what is in it, and the model out of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import jax
from jax.sharding import Mesh

from fmjax import specs
from fmjax.checkpoint import Checkpoints
from fmjax.config import FinetuneConfig, from_dict, to_json
from fmjax.errors import CheckpointError, UsageError
from fmjax.factory import ImageSize, Options, abstract, compute_dtype, initialise, leaf_shardings, resized
from fmjax.models.vit import ViT, join_blocks, split_blocks
from fmjax.optim import UNUSED_WITH_CLASSIFIER, Freeze, frozen
from fmjax.params import flat, leaf_paths, nested
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.weights import load

CONFIG, CLASSES = "config.json", "classes.json"
# what a rerun may change: the rest would make the resumed run another one
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
    return preprocess_config(config.model.name, config.model.image_size if config.model.image_size != (0, 0) else None)


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
    from flax import nnx

    rngs, options, model = nnx.Rngs(config.seed), model_options(config, num_classes, mesh), config.model
    if model.init == "random":
        return initialise(final_spec(config), rngs, **options)
    return load(
        model.name,
        checkpoint=model.checkpoint or None,
        dialect=model.dialect or None,
        resample=None if model.resample == "weights" else model.resample,
        offline=model.offline,
        rngs=rngs,
        image_size=image_size(config),
        **options,
    )


def final_spec(config: FinetuneConfig) -> specs.ViTSpec:
    """The spec of a run's model."""
    spec = specs.get_spec(specs.get_weights(config.model.name).name)
    policy = config.model.resample
    return resized(spec if policy == "weights" else replace(spec, resample=policy), image_size(config))


def freezing(config: FinetuneConfig, model: ViT) -> Freeze:
    """Which parameters of a run's model are not trained."""
    shapes = {path: leaf.shape for path, leaf in flat(model).items()}
    return frozen(shapes, (*config.optim.freeze, *UNUSED_WITH_CLASSIFIER), model.spec.depth)


def restore(run: str | Path, step: int | None = None, *, mesh: Mesh | None = None) -> ViT:
    """The model of a fine-tuned run, classifier included, at its newest or a given step.

    Raises CheckpointError where the folder holds no run or no such step.
    """
    config, classes = read_run(Path(run))
    checkpoints = Checkpoints(Path(run))
    wanted = checkpoints.latest() if step is None else step
    if wanted is None:
        raise CheckpointError(f"{run} has no checkpoint yet; run the same `fmjax finetune` command to go on")
    outline = abstract(final_spec(config), **model_options(config, len(classes), mesh))
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
    config = from_dict(FinetuneConfig, json.loads((run / CONFIG).read_text()))
    return config, tuple(json.loads((run / CLASSES).read_text()))


def write_run(run: Path, config: FinetuneConfig, classes: tuple[str, ...]) -> None:
    """Writes the config and classes, or checks them against those that are there.

    Raises UsageError, with the fields that differ, where the command would not continue the same run.
    """
    if (run / CONFIG).is_file():
        _check_same(run, config, classes)
    run.mkdir(parents=True, exist_ok=True)
    (run / CONFIG).write_text(to_json(config) + "\n")
    (run / CLASSES).write_text(json.dumps(classes, indent=2) + "\n")


def _check_same(run: Path, config: FinetuneConfig, classes: tuple[str, ...]) -> None:
    old, old_classes = read_run(run)
    neutral = {name: getattr(config, name) for name in SAFE}
    before, after = json.loads(to_json(replace(old, **neutral))), json.loads(to_json(config))
    changed = _differences(before, after)
    if old_classes != classes:
        changed.append(f"classes: {len(old_classes)} -> {len(classes)}")
    if changed:
        raise UsageError(
            f"{run} holds a run with other settings ({'; '.join(changed)}); pass another --out, or --fresh to "
            f"start it over"
        )


def _differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    out = []
    for name, value in after.items():
        if isinstance(value, dict):
            out += _differences(before[name], value, f"{prefix}{name}.")
        elif before[name] != value:
            out.append(f"{prefix}{name}: {before[name]!r} -> {value!r}")
    return out
