"""fmjax: vision foundation backbones in JAX, with their published weights and sharded fine-tuning.

Everything public is here and is imported when it is first used, so `import fmjax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "fmjax.specs": ("ModelFacts", "PreprocessConfig", "Rope", "Source", "ViTSpec", "Weights"),
    "fmjax.names": ("get_spec", "get_weights", "list_models", "register"),
    "fmjax.models.build": ("create", "initialise"),
    "fmjax.models.features": ("Features",),
    "fmjax.models.functional": ("functional", "with_params"),
    "fmjax.models.vit": ("ViT",),
    "fmjax.weights.load": ("load",),
    "fmjax.engine.predict": ("Prediction", "predict"),
    "fmjax.engine.run": ("export", "restore"),
    "fmjax.preprocessing": ("preprocess", "preprocess_config"),
    "fmjax.sharding": ("make_mesh",),
    "fmjax.errors": ("CheckpointError", "DataError", "FmjaxError", "UsageError"),
}
_OWNER = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.2.0"
__all__ = [
    "CheckpointError",
    "DataError",
    "Features",
    "FmjaxError",
    "ModelFacts",
    "Prediction",
    "PreprocessConfig",
    "Rope",
    "Source",
    "UsageError",
    "ViT",
    "ViTSpec",
    "Weights",
    "__version__",
    "create",
    "export",
    "functional",
    "get_spec",
    "get_weights",
    "initialise",
    "list_models",
    "load",
    "make_mesh",
    "predict",
    "preprocess",
    "preprocess_config",
    "register",
    "restore",
    "with_params",
]

if TYPE_CHECKING:
    from fmjax.engine.predict import Prediction, predict
    from fmjax.engine.run import export, restore
    from fmjax.errors import CheckpointError, DataError, FmjaxError, UsageError
    from fmjax.models.build import create, initialise
    from fmjax.models.features import Features
    from fmjax.models.functional import functional, with_params
    from fmjax.models.vit import ViT
    from fmjax.names import get_spec, get_weights, list_models, register
    from fmjax.preprocessing import PreprocessConfig, preprocess, preprocess_config
    from fmjax.sharding import make_mesh
    from fmjax.specs import ModelFacts, Rope, Source, ViTSpec, Weights
    from fmjax.weights.load import load


def __getattr__(name: str) -> Any:
    if name not in _OWNER:
        raise AttributeError(f"module 'fmjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_OWNER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
