"""Everything a program can be told: frozen dataclasses and their checks. Never imports jax."""

from fmjax.config.data import DataConfig, ImagesConfig
from fmjax.config.features import EmbedConfig, FeaturesConfig, KnnConfig, ProbeConfig
from fmjax.config.model import ModelConfig
from fmjax.config.recipe import OptimConfig
from fmjax.config.run import EvalConfig, FinetuneConfig, MeshConfig

__all__ = [
    "DataConfig",
    "EmbedConfig",
    "EvalConfig",
    "FeaturesConfig",
    "FinetuneConfig",
    "ImagesConfig",
    "KnnConfig",
    "MeshConfig",
    "ModelConfig",
    "OptimConfig",
    "ProbeConfig",
]
