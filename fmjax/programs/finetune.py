"""`fmjax finetune`: a backbone and images -> a run folder with a trained, scored and exported model."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
from jax.sharding import Mesh

from fmjax.config.run import RunConfig
from fmjax.console import console
from fmjax.data import audit
from fmjax.data.batches import blank_batch
from fmjax.data.commits import commit_of
from fmjax.data.example import check_fields
from fmjax.data.fast import opencv
from fmjax.data.sampling import check_sampling
from fmjax.data.sources import open_source
from fmjax.data.split import UNRECORDED, Images, divide
from fmjax.engine import (
    adapters,
    agreement,
    groups,
    heads,
    hosts,
    records,
    reruns,
    steps,
    throughput,
)
from fmjax.engine.backbone import build, preprocessing
from fmjax.engine.checkpoint import Checkpoints, check_room
from fmjax.engine.evaluate import Scores
from fmjax.engine.fitting import fit, limit_of
from fmjax.engine.guard import FIRST_SCALE
from fmjax.engine.lock import held
from fmjax.engine.loop import train
from fmjax.engine.metrics import METRICS, rows_in
from fmjax.engine.optim import warmup_steps
from fmjax.engine.placement import mesh_of, on_host, simulate_devices
from fmjax.engine.plan import Plan, make_task, resolve
from fmjax.engine.run import Run, chosen_step, restore_params, start_params
from fmjax.engine.signals import Terminated
from fmjax.engine.state import State, begin, handed_out, size
from fmjax.engine.steps import committed, has_steps
from fmjax.engine.tracking import check_installed, tracked
from fmjax.errors import Stopped, UsageError, amount, in_bytes
from fmjax.models.vit import ViT
from fmjax.programs.evaluate import summary
from fmjax.programs.report import at_end
from fmjax.report.figures import draw_curves
from fmjax.sharding import batch_divisor
from fmjax.trees import Params, flat
from fmjax.weights.export import check_export, export
from fmjax.weights.publisher import differences


def main(config: RunConfig) -> Scores:
    """`finetune` for the command line: a signal before the first step, or after the last, ends it with a sentence."""
    try:
        return finetune(config)
    except (KeyboardInterrupt, Terminated):
        saved = committed(Path(config.out))
        where = f"step {saved[-1]} is saved" if saved else "no step was done"
    raise Stopped(f"stopped; {where}; run the same command to go on")


def finetune(config: RunConfig) -> Scores:
    """Trains, scores and exports; running it again with the same config resumes. Returns the final scores."""
    with hosts.joined(config.hosts):
        return _finetuned(config)


def _finetuned(config: RunConfig) -> Scores:
    if not config.compare_random or config.model.init == "random":
        return one_run(config)[0]
    console.print(
        "the same model from random weights first, with the same budget and the same held-out images"
    )
    random = replace(config.model, init="random")
    # a head that was trained on the weights knows nothing of random ones
    other = replace(
        config,
        out=f"{config.out}/from_random",
        model=random,
        export="none",
        compare_random=False,
        head_from="",
    )
    # whichever of the two runs was there first has drawn the split; started afresh, it is the first that runs
    baseline, _ = one_run(other, share=None if config.fresh else Path(config.out))
    scores, plan = one_run(config, share=Path(other.out))
    console.print(compared(config, plan, scores, baseline))
    return scores


def compared(config: RunConfig, plan: Plan, scores: Scores, baseline: Scores) -> str:
    """Both runs' score in a sentence."""
    watch = plan.task.watch
    ours, theirs = (plan.task.words({watch: found[watch]}) for found in (scores, baseline))
    # shares are compared in points: 2 % more of 50 % could be read as 51 %
    gain = scores[watch] - baseline[watch]
    shown = f"{gain * 100:+.1f} points" if watch in plan.task.shares else f"{gain:+.4g}"
    return (
        f"val {ours} from {config.model.name}, {theirs.removeprefix(f'{watch} ')} from random weights: "
        f"{shown} with the same {config.steps} steps"
    )


def one_run(config: RunConfig, share: Path | None = None) -> tuple[Scores, Plan]:
    """One run. share: the folder of the run that it is compared with, whose split it takes over if it is new."""
    # before any use of a device; then all that can be refused is, before anything is written
    simulate_devices(config.mesh.simulate_devices)
    out = Path(config.out)
    config, images = examined(config, share)
    mesh = mesh_of(config.mesh, console.print)
    check_batch(config, mesh)
    backbone = build(config, mesh)
    reruns.check_spec(out, config, backbone.spec)
    reruns.check_images(out, config, preprocessing(config, backbone.spec))
    config, plan = fitted(config, planned(config, backbone, images), mesh)
    if images.changes is None and has_steps(out) and not config.fresh:
        console.print(f"note    {UNRECORDED}")
    check_room(out, size(plan))
    # the first process holds the folder for all
    with held(out) if hosts.is_first() else nullcontext():
        told = hosts.by_first(lambda: _recorded(out, config, images, backbone))
        for line in told:
            console.print(line)
        describe(config, plan, mesh, images)
        params = start_params(plan.task, backbone, plan.labels, config.seed, mesh)
        params = heads.taken_over(config, plan, params, mesh)
        run = Run(out, Checkpoints(out, keep=config.keep), config.fallback)
        with tracked(config, console.print) as run.also:
            state, scores = train(plan, run, mesh, begin(plan, params, mesh), images)
        finish(config, out, plan, mesh, state, scores)
        if config.report:
            console.print(hosts.by_first(lambda: at_end(out, config, images)))
    return scores, plan


def _recorded(out: Path, config: RunConfig, images: Images, backbone: ViT) -> list[str]:
    """Makes the records of a run that begins or goes on, and returns what is to be said of it."""
    # what an older command has left is read before the records are those of this one
    told = reruns.go_back(out, config)
    seen = preprocessing(config, backbone.spec)
    records.write_run(out, config, images.split, backbone.spec, seen)
    return told


def examined(config: RunConfig, share: Path | None = None) -> tuple[RunConfig, Images]:
    """The config as the run's folder completes it, and the images, having said what they are. All that can be refused
    is, before a model is made and before anything is written."""
    out = Path(config.out)
    check_installed(config.log)
    config = reruns.as_pinned(out, config, share)
    splits = open_source(config.data)
    config = reruns.with_source(config, splits.source)
    reruns.check_folder(out, config)
    # the parts that were found come back before the settings are compared
    config = reruns.as_fitted(out, config)
    reruns.check_same(out, config, splits.train.classes)
    images = divide(splits, config.data, records.recorded_split(out, config, share))
    commit = commit_of(config.data.source)
    agreement.check(config, the_images=images.split.digest, the_commit=commit)
    for line in audit.lines(splits, images.train, images.val):
        console.print(line)
    return config, images


def planned(config: RunConfig, backbone: ViT, images: Images) -> Plan:
    """The plan of a run with some images."""
    preprocess = preprocessing(config, backbone.spec)
    task = make_task(config, preprocess)
    check_fields(images.train, task.needs, source=config.data.source)
    check_sampling(images.train, config.data)
    if config.data.decoder == "fast":
        opencv()  # said before anything is read
    if "mask" in task.needs:
        config.data.check_mask()
    task = task.learning_from(images.train)
    # of zeros: it is traced only, for its shapes
    batch = blank_batch(images.train, task.view, config.data, batch_size=config.batch_size)
    plan = resolve(config, task, backbone, images.split.classes, preprocess, batch)
    if config.export != "none":
        check_export(plan.task.joined(plan.net), config.export)
    heads.check(config, plan)
    return plan


def fitted(config: RunConfig, plan: Plan, mesh: Mesh) -> tuple[RunConfig, Plan]:
    """Config and plan with as few parts as the devices' memory takes, where that is asked for."""
    if config.batch == "given":
        return config, plan
    # the search starts at the parts of the recipe, which are those of the record where a run goes on
    found = fit(plan, mesh, limit_of(mesh, config.memory_gib))
    console.print(found.words(plan, mesh))
    # the draws of drop path are of a part and a place in it
    if plan.net["backbone"].drop_path and found.parts != plan.accumulate > 1:
        console.print(
            f"note    {plan.accumulate} parts do not fit here, so drop path draws other numbers from now on"
        )
    recipe = replace(config.recipe, accumulate=found.parts)
    return replace(config, recipe=recipe), replace(plan, accumulate=found.parts)


def check_batch(config: RunConfig, mesh: Mesh) -> None:
    """Raises UsageError for a batch that does not divide over the devices and parts."""
    # every device computes as many images of every part as all others
    devices, parts = batch_divisor(mesh), config.recipe.accumulate
    # with --batch auto they are still to be found
    if config.batch == "auto":
        parts = 1
    if config.batch_size % (devices * parts):
        raise UsageError(
            f"--batch-size {config.batch_size} does not divide over {devices} devices (mesh axes data and fsdp) x "
            f"{amount(parts, 'part')} (--recipe.accumulate); take a multiple of {devices * parts}"
        )


def describe(config: RunConfig, plan: Plan, mesh: Mesh, images: Images) -> None:
    """The lines at the start: what is trained, on what, where."""
    # "model": what is trained of what
    leaves = flat(plan.params)
    trained = sum(leaf.size for path, leaf in leaves.items() if path not in plan.freeze.paths)
    total = sum(leaf.size for leaf in leaves.values())
    source = (
        config.model.name
        if config.model.init == "pretrained"
        else f"{config.model.name}, random weights"
    )
    axes = " x ".join(f"{axis} {size}" for axis, size in mesh.shape.items())

    # "data" and "mesh": on what, and where
    height, width = plan.images.image_size
    dtype = plan.net["backbone"].dtype
    console.print(f"model   {source}: {trained:,} of {total:,} parameters trained, {dtype} compute")
    for line in (*groups.lines(plan.groups), *heads.words(config)):
        console.print(line)
    scaled = config.recipe.of_batch(plan.batch_size).lr
    if scaled != config.recipe.lr:
        console.print(
            f"note    lr {config.recipe.lr:g} is of a batch of {config.recipe.lr_base_size}; one of "
            f"{plan.batch_size} has {scaled:.3g} (--recipe.lr-base-size)"
        )
    if plan.averages:
        console.print(
            f"note    the average of the parameters is scored, kept and exported, with "
            f"{plan.ema:g} of the old one in the new"
        )
    if config.recipe.lora_rank:
        console.print(adapters.words(plan.net["backbone"], config.recipe))
    console.print(
        f"data    {config.data.source}: {len(images.train):,} train, {len(images.val):,} val, "
        f"{amount(len(plan.labels), 'class', 'classes')}, {height} x {width}"
    )
    if plan.scales_loss:
        console.print(f"note    {float16_note(config.model.dtype)}")
    if images.changes is not None and images.changes.added:
        console.print(
            f"note    images that came after the run had begun are left out of it: {images.changes}"
        )
    console.print(
        f"mesh    {axes} ({jax.devices()[0].platform}), batch {config.batch_size}, {config.steps} steps"
    )
    kept = f"the newest {config.keep}" + (" and the best" if config.keep_best else "")
    console.print(
        f"disk    {in_bytes(size(plan))} a checkpoint, of which {kept} stay in {config.out}"
    )
    warmup = warmup_steps(config.recipe, config.steps)
    if warmup != config.recipe.warmup_steps:
        console.print(
            f"note    a warm-up of {config.recipe.warmup_steps} steps does not fit a run of {config.steps}; it is cut "
            f"to {warmup}"
        )


def float16_note(asked: str) -> str:
    """Why a run computes in float16, and what comes with it."""
    # "auto" takes it only where the device leaves no choice
    device = jax.devices()[0].device_kind
    why = f"{device} has no bfloat16" if asked == "auto" else "asked for by --model.dtype"
    scale = f"the loss is scaled, by {FIRST_SCALE:.0f} at first, half as much after each overflow"
    return f"float16: {why}; {scale}"


def finish(
    config: RunConfig, out: Path, plan: Plan, mesh: Mesh, state: State, scores: Scores
) -> None:
    """Curves, the task's own pictures, and the exported file of the best step; the first process writes them."""
    # the best step may not be the last one: its parameters are read back from disk, by all
    step = hosts.by_first(lambda: chosen_step(out, config, plan.task, None))
    read_back = partial(restore_params, out, plan.net, mesh=mesh, average=plan.averages)
    params: Params = {}
    if config.export != "none":
        last = step == plan.steps
        chosen = handed_out(plan, state) if last else read_back(step)
        params = on_host(chosen, mesh)
    for line in hosts.by_first(lambda: throughput.words(rows_in(out / METRICS), plan, mesh)):
        console.print(line)
    hosts.by_first(lambda: _written(config, out, plan, params, scores, step))


def _written(
    config: RunConfig, out: Path, plan: Plan, params: Params, scores: Scores, step: int
) -> None:
    # the pictures are of the last scores: the rows of older ones are not kept
    watched = f"val_{plan.task.watch}"
    draw_curves(out / "curves.png", rows_in(out / METRICS), plan.task.watch)
    plan.task.draw(scores.rows, plan.labels, out)
    console.print(summary(plan, scores))
    last = step == plan.steps
    if not last:
        [row] = [row for row in rows_in(out / METRICS) if row["step"] == step and watched in row]
        console.print(
            f"best    {plan.task.words({plan.task.watch: row[watched]})} at step {step}, which is kept"
        )
    if config.export != "none":
        model = plan.task.joined(plan.bound(params))
        left = sorted(part for part in plan.net if part != "backbone" and model.classifier is None)
        if left:
            console.print(
                f"note    the export is of the backbone; {', '.join(left)} stay in the run's checkpoints"
            )
        path = export(model, records.export_path(out, config), config.export)
        console.print(f"export  {path} of step {step}")
        changed = differences(model.spec, config.export)
        if changed:
            console.print(f"note    the code that reads {config.export} computes {changed}")
    kept = in_bytes(sum(map(steps.size, (out / steps.STEPS).glob("*"))))
    console.print(
        f"disk    {kept} of checkpoints; `fmjax ckpt prune {out} --params-only` leaves what scoring needs"
    )
    console.print(f"run     {out}")
