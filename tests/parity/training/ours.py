"""fmjax's own train step, of a plan that is resolved as that of any run."""

from __future__ import annotations

from dataclasses import dataclass

import jax
import numpy as np

import weights_conversion as wc
from fmjax.config import DataConfig, ModelConfig, RunConfig
from fmjax.engine.placement import on_mesh
from fmjax.engine.state import begin
from fmjax.models.build import abstract, param_shapes
from fmjax.models.vit import ViT
from fmjax.preprocessing import normalise
from fmjax.sharding import make_mesh
from fmjax.trees import Params, flat, nested
from fmjax.weights.load import fill
from tests.parity.training.settings import BATCH, CLASSES, Backbone, Setting
from tests.parity.training.theirs import Batches, Tensors, Trained
from tests.support.runs import Started, started


@dataclass
class Ours:
    """A run before its first step, and the batches that both sides are given."""

    backbone: Backbone
    run: Started
    batches: Batches

    def train(self) -> Trained:
        """Trains on every batch once."""
        run, weight = self.run, np.ones(BATCH, np.float32)
        losses, norms = [], []
        # the step is traced at its first call, and keeps the precision of that moment
        with jax.default_matmul_precision("highest"):
            for images, labels in self.batches:
                batch = {"image": images, "label": labels, "weight": weight}
                run.state, logs = run.functions.step(run.state, on_mesh(batch, run.mesh))
                losses.append(float(logs["loss"]))
                norms.append(float(logs["grad_norm"]))
        average = flat(run.state.params) | flat(run.state.ema)
        return Trained(
            losses,
            norms,
            to_file(self.backbone, flat(run.state.params)),
            to_file(self.backbone, average) if run.plan.ema else {},
        )


def prepare(backbone: Backbone, setting: Setting, file: Tensors, steps: int) -> Ours:
    """A run whose net has the tensors of a file, on one device."""
    params = to_params(backbone, file)
    config = RunConfig(
        model=ModelConfig(name=backbone.weights, dtype="float32"),
        data=DataConfig(source="digits", crop_scale=1.0, flip=0.0),
        recipe=setting.recipe_of(backbone),
        steps=steps,
        batch_size=BATCH,
    )
    run = started(config, make_mesh(devices=jax.devices()[:1]), _tower(backbone, params))
    # a run's own head starts at zero; this one is given the file's
    head = {path: params[path.replace("head.", "classifier.")] for path in HEAD}
    run.state = begin(run.plan, _with(run.state.params, head), run.mesh)
    # normalised here, so that both sides are given the same numbers
    batches = [next(run.batches) for _ in range(steps)]
    bytes_of = [jax.numpy.asarray(batch["image"]) for batch in batches]
    pictures = [np.asarray(normalise(images, run.plan.images)) for images in bytes_of]
    labels = [batch["label"] for batch in batches]
    return Ours(backbone, run, list(zip(pictures, labels, strict=True)))


HEAD = ("head.kernel", "head.bias")


def _tower(backbone: Backbone, params: Tensors) -> ViT:
    outline = abstract(backbone.spec, dtype=np.dtype(np.float32))
    return fill(outline, wc.in_memory_tree(params))


def _with(params: Params, values: Tensors) -> Params:
    """Parameters with other values in the places of some."""
    leaves = flat(params)
    new = {path: jax.device_put(value, leaves[path].sharding) for path, value in values.items()}
    return nested(leaves | new)


def to_params(backbone: Backbone, file: Tensors) -> Tensors:
    """A file in timm's names -> path -> array, the classifier's among them."""
    shapes = param_shapes(backbone.spec, CLASSES)
    table = wc.writing("timm", shapes)
    read = wc.to_jax(wc.in_memory_tree(file), table, shapes, heads=backbone.spec.num_heads)
    return {path: tensor.read(()) for path, tensor in read.params.items()}


def to_file(backbone: Backbone, leaves: Params) -> Tensors:
    """A net's parameters in timm's names."""
    arrays = {
        path.removeprefix("backbone.").replace("head.", "classifier."): np.asarray(leaf)
        for path, leaf in leaves.items()
    }
    table = wc.writing("timm", arrays)
    written = wc.to_torch(wc.in_memory_tree(arrays), table, heads=backbone.spec.num_heads)
    return {key: tensor.read(()) for key, tensor in written.items()}
