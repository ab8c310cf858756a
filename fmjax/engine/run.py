"""A run's config -> its model, newly made or out of the run's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Unpack

import jax
from flax import nnx
from jax.sharding import Mesh

from fmjax import specs
from fmjax.config.model import ModelConfig
from fmjax.config.run import FinetuneConfig
from fmjax.engine.checkpoint import Checkpoints
from fmjax.engine.optim import UNUSED, Freeze, frozen
from fmjax.engine.records import CONFIG, SPEC, damaged, read_run, read_spec
from fmjax.errors import CheckpointError
from fmjax.models.build import ImageSize, Options, abstract, compute_dtype, initialise, leaf_shardings, resized
from fmjax.models.surgery import join_blocks, split_blocks
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.trees import flat, leaf_paths, nested
from fmjax.weights import export as files
from fmjax.weights.load import load, published


def image_size(config: FinetuneConfig) -> ImageSize:
    """(height, width) that the run feeds the network."""
    return preprocessing(config).image_size


def preprocessing(config: FinetuneConfig, spec: specs.ViTSpec | None = None) -> PreprocessConfig:
    """How the run's images are brought to the network; `spec`, of its model, knows its size and whose file the weights
    are from."""
    if spec is None:
        return preprocess_config(config.model.name, asked_size(config.model))
    return preprocess_config(spec, spec.image_size)


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
    size = preprocessing(config).image_size
    spec = read_spec(run) or _final_spec(config.model, size)
    if spec.image_size != size:
        raise damaged(run / CONFIG, f"it has images of {size}, and {SPEC} a model for {spec.image_size}")
    return spec


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


def export(
    model: ViT | str | Path,
    path: str | Path,
    dialect: str = "timm",
    base: str | Path | None = None,
    *,
    classifier: bool = True,
) -> Path:
    """Writes a model, or the newest state of a run, as a safetensors file of a PyTorch dialect and returns its path.

    base: the original file; what fmjax does not model (text towers, mask tokens) returns from it unchanged. A
    classifier takes the place of the projection, as in timm; classifier=False leaves it out and keeps the projection.
    Raises CheckpointError where the dialect has no place for a parameter, UsageError where `path` is the base.
    """
    whole = model if isinstance(model, ViT) else restore(model)
    return files.export(whole, path, dialect, base, classifier=classifier)


def _with_shardings(model: ViT, mesh: Mesh | None) -> dict[str, jax.ShapeDtypeStruct]:
    one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = leaf_shardings(model, mesh) or [one] * len(leaf_paths(model))
    leaves = jax.tree.leaves(model)
    return {
        path: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
        for path, leaf, sharding in zip(leaf_paths(model), leaves, shardings, strict=True)
    }
