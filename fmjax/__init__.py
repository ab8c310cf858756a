"""fmjax: vision foundation backbones in JAX, with their published weights and sharded fine-tuning.

Everything public is here and is imported when it is first used, so `import fmjax` costs nothing.
"""

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "fmjax.specs": ("Rope", "ViTSpec", "Weights", "Source", "get_spec", "get_weights", "list_models", "register"),
    "fmjax.factory": ("create", "initialise"),
    "fmjax.weights": ("load", "export"),
    "fmjax.run": ("restore",),
    "fmjax.params": ("functional", "with_params"),
    "fmjax.preprocessing": ("preprocess", "preprocess_config", "PreprocessConfig"),
    "fmjax.models.vit": ("Features", "ViT"),
    "fmjax.sharding": ("make_mesh",),
    "fmjax.errors": ("CheckpointError", "DataError", "UsageError"),
}
_OWNER = {name: home for home, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = [
    "CheckpointError",
    "DataError",
    "Features",
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
    "preprocess",
    "preprocess_config",
    "register",
    "restore",
    "with_params",
]

if TYPE_CHECKING:
    from fmjax.errors import CheckpointError, DataError, UsageError
    from fmjax.factory import create, initialise
    from fmjax.models.vit import Features, ViT
    from fmjax.params import functional, with_params
    from fmjax.preprocessing import PreprocessConfig, preprocess, preprocess_config
    from fmjax.run import restore
    from fmjax.sharding import make_mesh
    from fmjax.specs import Rope, Source, ViTSpec, Weights, get_spec, get_weights, list_models, register
    from fmjax.weights import export, load


def __getattr__(name: str) -> Any:
    if name not in _OWNER:
        raise AttributeError(f"module 'fmjax' has no attribute {name!r}")
    value = getattr(importlib.import_module(_OWNER[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
