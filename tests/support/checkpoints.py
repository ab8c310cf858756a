"""Small checkpoints in any dialect."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

import weights_conversion as wc
from fmjax.models.build import param_shapes
from fmjax.names import get_spec
from fmjax.specs import ViTSpec


def small(name: str, depth: int = 2) -> ViTSpec:
    """The same graph in small: what is on or off stays so."""
    spec = get_spec(name)
    return replace(
        spec,
        depth=depth,
        width=48,
        num_heads=2 if spec.rope is None else 3,
        mlp_dim=40,
        image_size=(4 * spec.patch_size, 4 * spec.patch_size),
        embed_dim=24 if spec.embed_dim else 0,
        pool_heads=2 if spec.pool_heads else 0,
        pool_mlp_dim=56 if spec.pool_mlp_dim else 0,
    )


def random_file(
    spec: ViTSpec, dialect: str, dtype: type = np.float32, seed: int = 0
) -> dict[str, np.ndarray]:
    """Random tensors under the dialect's names, as a file of that model would hold them."""
    rng = np.random.default_rng(seed)
    shapes = param_shapes(spec)
    params = {
        path: wc.in_memory(rng.standard_normal(shape).astype(dtype))
        for path, shape in shapes.items()
    }
    table = wc.writing(dialect, shapes)
    return {
        key: tensor.read(())
        for key, tensor in wc.to_torch(params, table, heads=spec.num_heads).items()
    }


def save(path: Path, tensors: dict[str, np.ndarray]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        {key: np.array(value, order="C") for key, value in tensors.items()},
        path,
        metadata={"format": "pt"},
    )
    return path
