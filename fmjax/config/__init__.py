"""Everything a program can be told: frozen dataclasses and their checks. Never imports jax."""

from fmjax.config.augment import AugmentConfig
from fmjax.config.average import AverageConfig
from fmjax.config.backbones import BackbonesConfig
from fmjax.config.bench import BenchConfig
from fmjax.config.data import DataConfig, ImagesConfig
from fmjax.config.features import EmbedConfig, FeaturesConfig, KnnConfig, ProbeConfig
from fmjax.config.hosts import HostsConfig
from fmjax.config.model import ModelConfig
from fmjax.config.predict import PredictConfig
from fmjax.config.presets import load_preset
from fmjax.config.recipe import Recipe
from fmjax.config.report import ReportConfig
from fmjax.config.run import EvalConfig, MeshConfig, RunConfig
from fmjax.config.sets import DataCheckConfig, DataPackConfig
from fmjax.config.tasks import ClassifyConfig, MultiLabelConfig, SegmentConfig, TaskConfig

__all__ = [
    "AugmentConfig",
    "AverageConfig",
    "BackbonesConfig",
    "BenchConfig",
    "ClassifyConfig",
    "DataCheckConfig",
    "DataConfig",
    "DataPackConfig",
    "EmbedConfig",
    "EvalConfig",
    "FeaturesConfig",
    "HostsConfig",
    "ImagesConfig",
    "KnnConfig",
    "MeshConfig",
    "ModelConfig",
    "MultiLabelConfig",
    "PredictConfig",
    "ProbeConfig",
    "Recipe",
    "ReportConfig",
    "RunConfig",
    "SegmentConfig",
    "TaskConfig",
    "load_preset",
]
