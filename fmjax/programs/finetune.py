"""`fmjax finetune`: a backbone and labelled images -> a run folder with a trained, evaluated and exported model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from fmjax.config.run import FinetuneConfig
from fmjax.console import console
from fmjax.data import audit
from fmjax.data.batches import BadImages, train_batches
from fmjax.data.example import check_fields
from fmjax.data.sources import open_source
from fmjax.data.split import UNRECORDED, Images, divide
from fmjax.data.transforms import Views
from fmjax.engine import records as files
from fmjax.engine import run as runs
from fmjax.engine.checkpoint import Checkpoints, State, has_steps
from fmjax.engine.metrics import Metrics
from fmjax.engine.optim import cross_entropy, merge, optimiser, partition, schedule, warmup_steps
from fmjax.engine.placement import on_mesh
from fmjax.engine.watch import Progress
from fmjax.errors import UsageError
from fmjax.models.functional import Apply, functional, with_params
from fmjax.models.surgery import split_blocks
from fmjax.models.vit import ViT
from fmjax.preprocessing import PreprocessConfig, normalise
from fmjax.programs.evaluate import Scores, evaluate, predict_step
from fmjax.report.figures import draw_confusion, draw_curves
from fmjax.sharding import batch_divisor, batch_sharding, make_mesh, replicated
from fmjax.trees import Params, flat
from fmjax.weights.export import check_export, export
from fmjax.weights.publisher import differences

Step = Callable[[State, dict[str, jax.Array]], tuple[State, dict[str, jax.Array]]]


@dataclass(frozen=True)
class Trainer:
    """Everything that one run's steps need: the functions are jitted with their shardings, the state is explicit."""

    model: ViT  # blocks split where the leading ones are frozen
    apply: Apply
    frozen_paths: frozenset[str]
    step: Any
    state: State


def main(config: FinetuneConfig) -> Scores:
    """Trains, evaluates and exports; running it again with the same config resumes. Returns the final scores."""
    if not config.compare_random or config.model.init == "random":
        return finetune(config)
    console.print("the same model from random weights first, with the same budget and the same held-out images")
    random = replace(config.model, init="random")
    other = replace(config, out=f"{config.out}/from_random", model=random, export="none", compare_random=False)
    # whichever of the two runs was there first has drawn the split; started afresh, it is the first that runs
    baseline = finetune(other, share=None if config.fresh else Path(config.out))
    scores = finetune(config, share=Path(other.out))
    console.print(
        f"val accuracy {scores.accuracy:.1%} from {config.model.name}, {baseline.accuracy:.1%} from random weights: "
        f"{(scores.accuracy - baseline.accuracy) * 100:+.1f} points with the same {config.steps} steps"
    )
    return scores


def finetune(config: FinetuneConfig, share: Path | None = None) -> Scores:
    """One run. share: the folder of the run that it is compared with, whose split it takes over if it is new."""
    if jax.process_count() > 1:
        raise UsageError(
            f"fine-tuning runs in one process so far, not in {jax.process_count()}; give that process all devices"
        )
    out = Path(config.out)
    splits = open_source(config.data)
    check_fields(splits.train, ("image", "label"), source=config.data.source)
    # all that can be refused is, before a model is made and before anything is written
    files.check_folder(out, config)
    files.check_same(out, config, splits.train.classes)
    images = divide(splits, config.data, files.recorded_split(out, config, share))
    for line in audit.lines(splits, images.train, images.val):
        console.print(line)
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    check_batch(config, mesh)
    model = runs.build(config, len(images.split.classes), mesh)
    files.check_spec(out, config, model.spec)
    preprocess = runs.preprocessing(config, model.spec)
    if config.export != "none":
        check_export(model, config.export)
    trainer = make_trainer(config, model, mesh, preprocess)
    if images.changes is None and has_steps(out) and not config.fresh:
        console.print(f"note    {UNRECORDED}")
    files.write_run(out, config, images.split, model.spec)
    del model
    describe(config, trainer, mesh, images)
    return run_steps(config, trainer, mesh, preprocess, images)


def run_steps(
    config: FinetuneConfig, trainer: Trainer, mesh: Mesh, preprocess: PreprocessConfig, images: Images
) -> Scores:
    """Trains from the newest checkpoint to the last step, evaluating and saving on the way, and finishes the run."""
    out = Path(config.out)
    checkpoints = Checkpoints(out, keep=config.keep)
    seed = stream_seed(config.seed, "data")
    view = Views(preprocess, config.data.crop_scale, config.data.flip)
    batches = train_batches(images.train, view, config.data, batch_size=config.batch_size, seed=seed)
    state, start = resumed(config, trainer.state, checkpoints, batches)
    metrics = Metrics(out / "metrics.jsonl", start)
    if metrics.dropped:
        console.print(f"note    {metrics.dropped}")
    bad = BadImages(images.train, config.data.max_bad)
    rate = schedule(config.optim, config.steps)
    predict = predict_step(trainer.apply, preprocess, mesh)

    def validate(params: Params) -> Scores:
        return evaluate(predict, params, images.val, config.data, preprocess, mesh, batch_size=config.batch_size)

    with Progress(config.steps, config.batch_size, start) as progress:
        for step in range(start + 1, config.steps + 1):
            with progress.waiting():
                batch = next(batches)
            for name in bad.add(batch):
                progress.print(f"unreadable image left out: {name}")
            state, values = trainer.step(state, on_mesh(batch, mesh))
            if step == start + 1:
                jax.block_until_ready(values)  # compiled and done: from here on, time is a step's own
                progress.begin(step)
            evaluates, saves = is_due(config, step)
            if step % config.log_every == 0 or evaluates or saves:
                log_step(metrics, progress, step, values, rate)
            with progress.paused():
                if evaluates:
                    scores = validate(state["params"])
                    metrics.add({"step": step, "val_loss": scores.loss, "val_accuracy": scores.accuracy})
                    progress.print(f"step {step}/{config.steps}  {scores.line}")
                if saves:
                    checkpoints.save(step, state, batches.get_state())
    scores = validate(state["params"])
    if not any(row["step"] == config.steps and "val_loss" in row for row in metrics.rows()):
        metrics.add({"step": config.steps, "val_loss": scores.loss, "val_accuracy": scores.accuracy})
    checkpoints.wait()
    checkpoints.close()
    finish(config, out, with_params(trainer.model, state["params"]), metrics, scores, images.split.classes)
    return scores


def resumed(config: FinetuneConfig, state: State, checkpoints: Checkpoints, batches: Any) -> tuple[State, int]:
    """The newest saved state and its step, the data at its position; the state that is passed, and 0, without one."""
    start = checkpoints.latest() or 0
    if start > config.steps:
        raise UsageError(
            f"{config.out} is at step {start} already, beyond --steps {config.steps}; pass more steps, or --fresh"
        )
    if start:
        state, position = checkpoints.restore(start, emptied(state))
        batches.set_state(position)
        console.print(f"resumed from step {start}")
    return state, start


def is_due(config: FinetuneConfig, step: int) -> tuple[bool, bool]:
    """Whether to evaluate and to save after a step. The last one is saved, and evaluated when the run finishes."""
    last = step == config.steps
    return step % config.eval_every == 0 and not last, step % config.save_every == 0 or last


def log_step(metrics: Metrics, progress: Progress, step: int, values: dict[str, Any], rate: optax.Schedule) -> None:
    """A row of metrics.jsonl and a line on the screen. Raises UsageError where the numbers have exploded."""
    loss, accuracy, norm = (float(values[name]) for name in ("loss", "accuracy", "grad_norm"))
    if not np.isfinite([loss, norm]).all():
        raise UsageError(f"the loss is {loss} at step {step}; lower --optim.lr, or raise --optim.warmup-steps")
    speed = progress.update(step, loss=loss, accuracy=accuracy)
    lr = float(jnp.asarray(rate(step - 1)))
    metrics.add({"step": step, "loss": loss, "accuracy": accuracy, "lr": lr, **speed, "grad_norm": norm})


def make_trainer(config: FinetuneConfig, model: ViT, mesh: Mesh, preprocess: PreprocessConfig) -> Trainer:
    """Splits what is trained from what is frozen, builds the optimiser's state where its parameters lie, jits the
    step."""
    freeze = runs.freezing(config, model)
    depth = model.spec.depth
    model = split_blocks(model, freeze.blocks) if freeze.blocks else model
    apply, params = functional(model)
    trained, _ = partition(params, freeze)
    shapes = {path: leaf.shape for path, leaf in flat(trained).items()}
    tx = optimiser(config.optim, config.steps, shapes, depth, freeze.blocks)
    places = jax.tree.map(lambda leaf: leaf.sharding, params)
    moments = optax.tree_utils.tree_map_params(
        tx,
        lambda _, place: place,
        jax.eval_shape(tx.init, trained),
        partition(places, freeze)[0],
        transform_non_params=lambda _: replicated(mesh),
    )
    key = jax.device_put(jax.random.key_data(jax.random.key(stream_seed(config.seed, "model"))), replicated(mesh))
    count = jax.device_put(jnp.zeros((), jnp.int32), replicated(mesh))
    state = {
        "params": params,
        "optimiser": jax.jit(tx.init, out_shardings=moments)(trained),
        "random": {"key": key, "step": count},
    }
    where = {"params": places, "optimiser": moments, "random": dict.fromkeys(("key", "step"), replicated(mesh))}
    step = jax.jit(
        partial(train_step, config=config, apply=apply, tx=tx, frozen=freeze, preprocess=preprocess, mesh=mesh),
        in_shardings=(where, batch_sharding(mesh)),
        out_shardings=(where, replicated(mesh)),
        donate_argnums=0,
    )
    return Trainer(model, apply, freeze.paths, step, state)


def train_step(
    state: State,
    batch: dict[str, jax.Array],
    *,
    config: FinetuneConfig,
    apply: Apply,
    tx,
    frozen,
    preprocess,
    mesh: Mesh,
) -> tuple[State, dict[str, jax.Array]]:
    """One optimiser step over a batch, in `accumulate` parts: gradients are summed in float32, so the parts do not
    matter."""
    trained, rest = partition(state["params"], frozen)
    key = jax.random.fold_in(jax.random.wrap_key_data(state["random"]["key"]), state["random"]["step"])
    total = jnp.maximum(batch["weight"].sum(), 1.0)

    def loss_sum(trained: Params, part: dict[str, jax.Array], key: jax.Array) -> tuple[jax.Array, jax.Array]:
        images = normalise(part["image"], preprocess)
        logits: Any = apply(merge(trained, rest), images, key if config.drop_path else None).logits
        losses = cross_entropy(logits, part["label"], config.optim.label_smoothing)
        right = (logits.argmax(-1) == part["label"]) * part["weight"]
        return (losses * part["weight"]).sum() / total, right.sum() / total

    def accumulate(carry, inputs):
        index, part = inputs
        (loss, right), grads = jax.value_and_grad(loss_sum, has_aux=True)(trained, part, jax.random.fold_in(key, index))
        return jax.tree.map(jnp.add, carry, (grads, loss, right)), None

    parts = config.optim.accumulate
    if parts == 1:
        (loss, right), grads = jax.value_and_grad(loss_sum, has_aux=True)(trained, batch, jax.random.fold_in(key, 0))
    else:
        zeros = (jax.tree.map(jnp.zeros_like, trained), jnp.zeros(()), jnp.zeros(()))
        (grads, loss, right), _ = jax.lax.scan(accumulate, zeros, (jnp.arange(parts), in_parts(batch, parts, mesh)))
    updates, optimiser_state = tx.update(grads, state["optimiser"], trained)
    new: Any = optax.apply_updates(trained, updates)
    params = merge(new, rest)
    random = {"key": state["random"]["key"], "step": state["random"]["step"] + 1}
    return {"params": params, "optimiser": optimiser_state, "random": random}, {
        "loss": loss,
        "accuracy": right,
        "grad_norm": optax.tree.norm(grads),
    }


def in_parts(batch: dict[str, jax.Array], parts: int, mesh: Mesh) -> dict[str, jax.Array]:
    """[B ...] -> [parts B/parts ...], every device keeping the images that it has."""

    def split(x: jax.Array) -> jax.Array:
        split = jnp.swapaxes(x.reshape(-1, parts, *x.shape[1:]), 0, 1)
        spec = jax.sharding.PartitionSpec(None, *batch_sharding(mesh).spec)
        return jax.lax.with_sharding_constraint(split, jax.sharding.NamedSharding(mesh, spec))

    return jax.tree.map(split, batch)


def emptied(state: State) -> State:
    """The shapes and places of a state, whose memory is given back: what is restored must fit beside nothing."""
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    jax.tree.map(lambda x: x.delete(), state)
    return shapes


def check_batch(config: FinetuneConfig, mesh: Mesh) -> None:
    """Raises UsageError for a batch that does not divide over the devices and parts."""
    devices = batch_divisor(mesh)
    if config.batch_size % (devices * config.optim.accumulate):
        raise UsageError(
            f"--batch-size {config.batch_size} does not divide over {devices} devices (mesh axes data and fsdp) x "
            f"{config.optim.accumulate} parts (--optim.accumulate); take a multiple of "
            f"{devices * config.optim.accumulate}"
        )


def stream_seed(seed: int, stream: str) -> int:
    """Independent randomness for the data and the model out of one seed."""
    return int(np.random.SeedSequence([seed, *stream.encode()]).generate_state(1)[0])


def describe(config: FinetuneConfig, trainer: Trainer, mesh: Mesh, images: Images) -> None:
    """The lines at the start: what is trained, on what, where."""
    leaves = flat(trainer.state["params"])
    trained = sum(leaf.size for path, leaf in leaves.items() if path not in trainer.frozen_paths)
    total = sum(leaf.size for leaf in leaves.values())
    source = config.model.name if config.model.init == "pretrained" else f"{config.model.name}, random weights"
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    height, width = runs.preprocessing(config).image_size
    console.print(f"model   {source}: {trained:,} of {total:,} parameters trained, {trainer.model.dtype} compute")
    console.print(
        f"data    {config.data.source}: {len(images.train):,} train, {len(images.val):,} val, "
        f"{len(images.split.classes)} classes, {height} x {width}"
    )
    if images.changes is not None and images.changes.added:
        console.print(f"note    images that came after the run had begun are left out of it: {images.changes}")
    console.print(f"mesh    {axes} ({jax.devices()[0].platform}), batch {config.batch_size}, {config.steps} steps")
    warmup = warmup_steps(config.optim, config.steps)
    if warmup != config.optim.warmup_steps:
        console.print(
            f"note    a warm-up of {config.optim.warmup_steps} steps does not fit a run of {config.steps}; it is cut "
            f"to {warmup}"
        )


def finish(
    config: FinetuneConfig, out: Path, model: ViT, metrics: Metrics, scores: Scores, classes: tuple[str, ...]
) -> None:
    """Curves, confusion matrix and the exported file."""
    draw_curves(out / "curves.png", metrics.rows())
    draw_confusion(out / "confusion.png", scores.labels, scores.predictions, classes)
    console.print(scores.summary)
    if config.export != "none":
        path = export(model, files.export_path(out, config), config.export)
        console.print(f"export  {path}")
        changed = differences(model.spec, config.export)
        if changed:
            console.print(f"note    the code that reads {config.export} computes {changed}")
    console.print(f"run     {out}")
