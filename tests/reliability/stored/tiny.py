"""A very small network on scikit-learn's handwritten digits: the runs that are stored with the tests."""

from dataclasses import replace

import fmjax
from fmjax import Weights
from fmjax.config import DataConfig, ModelConfig, Recipe, RunConfig

SPEC = replace(
    fmjax.get_spec("demo_vit_ti4"),
    name="stored_vit",
    width=16,
    depth=2,
    num_heads=2,
    mlp_dim=32,
    image_size=(8, 8),
)
WEIGHTS = Weights(
    model="stored_vit",
    tag="none",
    sources=(),
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    image_size=(8, 8),
    licence="Apache-2.0",
)
fmjax.register(SPEC, WEIGHTS)
config = RunConfig(
    out="runs/stored",
    model=ModelConfig(name="stored_vit.none", init="random"),
    data=DataConfig(source="digits", crop_scale=0.8),
    recipe=Recipe(lr=1e-2, warmup_steps=2, layer_decay=0.8),
    steps=8,
    batch_size=32,
    eval_every=4,
    save_every=4,
    log_every=1,
    keep=2,
    drop_path=0.1,
    export="none",
)
