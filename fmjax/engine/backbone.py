"""The backbone of a run: where its weights come from, how it computes, and the images that it sees."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from flax import nnx
from jax.sharding import Mesh

from fmjax import specs
from fmjax.config.model import ModelConfig
from fmjax.config.run import RunConfig
from fmjax.engine import adapters, narrow
from fmjax.engine.state import stream_seed
from fmjax.models.build import ImageSize, abstract, compute_dtype, initialise, resized
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, preprocess_config
from fmjax.weights.load import load, published


def preprocessing(config: RunConfig, spec: specs.ViTSpec | None = None) -> PreprocessConfig:
    """How the run's images are brought to the network; `spec`, of its model, knows its size and whose file the weights
    are from."""
    if spec is None:
        return preprocess_config(config.model.name, asked_size(config.model))
    return preprocess_config(spec, spec.image_size)


def asked_size(config: ModelConfig) -> ImageSize | None:
    """The image size that the config asks for; None is the weights' own."""
    return config.image_size if config.image_size != (0, 0) else None


def build(config: RunConfig, mesh: Mesh | None) -> ViT:
    """The backbone that a run starts from, its position table resized to the run's images, on the mesh; with new
    adapters where the recipe trains some."""
    # weights become what they are kept in as they are read: nothing is on a device in float32 before
    narrowed = config.recipe.frozen != "float32"
    kept = narrow.dtypes(outlined(config, mesh)) if narrowed else None
    # how it computes is part of it: the loop has no word about kernels
    model = build_model(
        config.model,
        preprocessing(config).image_size,
        nnx.Rngs(config.seed),
        param_dtypes=kept,
        **_options(config),
        mesh=mesh,
    )
    return adapters.attached(model, config.recipe, stream_seed(config.seed, "lora"), mesh)


def _options(config: RunConfig) -> dict[str, Any]:
    """How a run's backbone computes, as arguments of `create`."""
    names = ("drop_path", "drop_path_by", "attention", "norms", "activations", "remat", "unroll")
    return {name: getattr(config, name) for name in names}


def outlined(config: RunConfig, mesh: Mesh | None) -> ViT:
    """The backbone that `build` returns, of shapes: no weights are looked for."""
    return of_spec(config, final_spec(config.model, preprocessing(config).image_size), mesh)


def of_spec(config: RunConfig, spec: specs.ViTSpec, mesh: Mesh | None) -> ViT:
    """A backbone of shapes, with the options of the run: what is scored is the function that was trained."""
    model = abstract(
        spec,
        **_options(config),
        dtype=compute_dtype(config.model.dtype),
        mesh=mesh,
    )
    return narrow.outlined(adapters.outlined(model, config.recipe), config.recipe)


def build_model(
    config: ModelConfig,
    size: ImageSize,
    rngs: nnx.Rngs | None = None,
    *,
    param_dtypes: narrow.Dtypes | None = None,
    **options: Any,
) -> ViT:
    """The backbone of a config for images of a size, with its weights or random ones. param_dtypes: of parameters that
    are not float32. options: as of `create`."""
    dtype = compute_dtype(config.dtype)
    # the same graph, size and position policy in both cases: only the numbers differ
    if config.init == "random":
        model = initialise(final_spec(config, size), rngs, dtype=dtype, **options)
        return narrow.rounded(model, param_dtypes) if param_dtypes else model
    return load(
        config.name,
        checkpoint=config.checkpoint or None,
        dialect=config.dialect or None,
        resample=None if config.resample == "weights" else config.resample,
        offline=config.offline,
        rngs=rngs,
        image_size=size,
        num_classes=0,
        dtype=dtype,
        param_dtypes=param_dtypes,
        **options,
    )


def final_spec(config: ModelConfig, size: ImageSize) -> specs.ViTSpec:
    spec = published(config.name, config.checkpoint or None)[1]
    return resized(
        spec if config.resample == "weights" else replace(spec, resample=config.resample), size
    )
