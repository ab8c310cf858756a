"""A command that is run again: whether it goes on with the run that is there, or would make another one of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmjax import specs
from fmjax.config.run import RunConfig
from fmjax.config.schemes import SCHEMES
from fmjax.data.commits import HUB, as_recorded
from fmjax.data.split import SPLIT, examples
from fmjax.engine import manifest, steps
from fmjax.engine.records import (
    CONFIG,
    LATER,
    TRACKED,
    config_record,
    export_path,
    read_preprocessing,
    read_run,
    read_spec,
)
from fmjax.engine.steps import has_steps
from fmjax.errors import UsageError
from fmjax.serial import to_json
from fmjax.targets import check_not_source

# what a rerun may change: the rest would make the resumed run another one
SAFE_DATA = ("data_dir", "threads", "workers", "max_bad", "max_bad_share", "stream_cache_gib")
SAFE_MODEL = ("checkpoint", "offline")
SAFE = (
    "out",
    "mesh",
    "hosts",
    "steps",
    "eval_every",
    "save_every",
    "log_every",
    "log",
    "log_project",
    "profile_steps",
    "keep",
    "keep_best",
    "fallback",
    "from_step",
    "compare_random",
    "export",
    "report",
    "fresh",
    "attention",
    "norms",
    "activations",
    "remat",
    "unroll",
    "batch",
    "memory_gib",
    "dry_run",
    "deterministic",
    "compiler_options",
)
SAFE_RECIPE = ("max_skipped",)
# what may be another from a step on that the user goes back to: it changes no array of the state
FROM_A_STEP = (
    "lr",
    "schedule",
    "warmup_steps",
    "final_lr",
    "step_at",
    "step_factor",
    "nesterov",
    "weight_decay",
    "decay",
    "b1",
    "b2",
    "eps",
    "layer_decay",
    "clip_norm",
    "clip_by",
    "accumulate",
    "ema_warmup",
)


def check_folder(run: Path, config: RunConfig) -> None:
    """Raises UsageError where a run would write over a file that it reads, or over files that no run has written;
    CheckpointError where what is there is a damaged run."""
    if config.export != "none" and config.model.checkpoint:
        check_not_source(
            export_path(run, config), config.model.checkpoint, flag="the run's own file"
        )
    if config.fresh or has_steps(run):
        return
    if (run / CONFIG).is_file():
        read_run(run, config.task)  # a config of something else is none
        return
    # what a run writes last of all, so that a run has a config beside them
    foreign = [name for name in LATER if (run / name).exists()]
    if foreign:
        raise UsageError(f"{run} has a {foreign[0]} and is no run's folder; pass another --out")


def as_fitted(run: Path, config: RunConfig) -> RunConfig:
    """The config of a run with --batch auto, which goes on in the parts that were found when it began: their number is
    a setting like any other, and another one only where they do not fit any more."""
    if config.batch == "given" or config.fresh or not has_steps(run):
        return config
    parts = read_run(run, config.task)[0].recipe.accumulate
    if config.batch_size % parts:
        return config  # another batch, which is refused as such
    return replace(config, recipe=replace(config.recipe, accumulate=parts))


def as_pinned(run: Path, config: RunConfig, share: Path | None = None) -> RunConfig:
    """The config with the source as the run recorded it, or `share`, which it is compared with: a dataset of the hub at
    the commit that was found when the run began."""
    # no other source may become another set, and no record is read for it
    if not config.data.source.startswith(HUB):
        return config
    known = [] if config.fresh else [run]
    known += [] if share is None else [share]
    for folder in known:
        if has_steps(folder):
            recorded = read_run(folder, config.task)[0].data.source
            return with_source(config, as_recorded(config.data.source, recorded))
    return config


def with_source(config: RunConfig, source: str) -> RunConfig:
    """The config with another spelling of its source; "" for its own."""
    if not source or source == config.data.source:
        return config
    return replace(config, data=replace(config.data, source=source))


def check_same(run: Path, config: RunConfig, classes: tuple[str, ...]) -> None:
    """Raises UsageError, with the fields that differ, where the command would not continue the run that is there."""
    if config.fresh or not has_steps(run):
        return
    # both configs with what may change made equal: all that still differs makes it another run
    old, old_classes = read_run(run, config.task)
    # damaged ones are refused before a model is made
    read_spec(run)
    read_preprocessing(run)
    neutral: dict[str, Any] = {name: getattr(config, name) for name in SAFE}
    neutral["data"] = replace(
        old.data, **{name: getattr(config.data, name) for name in safe_data(run, old, config)}
    )
    neutral["model"] = replace(
        old.model, **{name: getattr(config.model, name) for name in SAFE_MODEL}
    )
    free = SAFE_RECIPE + (FROM_A_STEP if config.from_step else ())
    neutral["recipe"] = replace(old.recipe, **{name: getattr(config.recipe, name) for name in free})
    before, after = config_record(replace(old, **neutral)), config_record(config)
    changed = [*differences(before, after), *_class_differences(old_classes, classes)]
    if changed:
        raise UsageError(
            f"{run} holds a run with other settings ({'; '.join(changed)}); pass another --out, or --fresh to "
            f"start it over"
        )


def go_back(run: Path, config: RunConfig) -> list[str]:
    """Sets the steps after --from-step aside, and says so in a line; once, as the same command run again goes on.

    Raises UsageError where that step is not saved.
    """
    if not config.from_step or not steps.has_steps(run):
        return []
    old, _ = read_run(run, config.task)
    # what may change at any time makes no other command of it
    free = (*SAFE_RECIPE, "accumulate") if config.batch == "auto" else SAFE_RECIPE
    same = replace(old.recipe, **{name: getattr(config.recipe, name) for name in free})
    if (old.from_step, same) == (config.from_step, config.recipe):
        return []
    known = steps.committed(run)
    if config.from_step not in known:
        raise UsageError(f"--from-step is {config.from_step}; {run} has the steps {known}")
    # looked at first: the later ones may be the only ones that are whole
    place = steps.folder(run, config.from_step)
    reason = manifest.flaw(place) if manifest.exists(place) else ""
    if not (place / "opt").is_dir():
        reason = reason or "it has parameters only"
    if reason:
        raise UsageError(
            f"--from-step {config.from_step} cannot be gone back to: {reason}; {run} has the steps {known}"
        )
    later = [step for step in known if step > config.from_step]
    places = [steps.set_aside(run, step) for step in later]
    # what --log has sent of the later steps is of a run that ends here: the tools get another one
    (run / TRACKED).unlink(missing_ok=True)
    told = f"; set aside in {places[0].parent}: {later}" if later else ""
    return [f"note    going back to step {config.from_step}{told}"]


def safe_data(run: Path, old: RunConfig, config: RunConfig) -> tuple[str, ...]:
    """The data settings that may change. A folder may move: its images are compared with the record, by name."""
    kinds = {each.data.source.partition(":")[0] for each in (old, config)}
    moved = len(kinds) == 1 and SCHEMES[kinds.pop()].is_path and (run / SPLIT).is_file()
    return (*SAFE_DATA, "source") if moved else SAFE_DATA


def _class_differences(before: tuple[str, ...], after: tuple[str, ...]) -> list[str]:
    gone, new = sorted({*before} - {*after}), sorted({*after} - {*before})
    kinds = (("gone", gone), ("new", new))
    found = [f"classes {kind}: {examples(names)}" for kind, names in kinds if names]
    if not found and before != after:
        return ["classes: the same ones in another order"]
    return found


def check_spec(run: Path, config: RunConfig, spec: specs.ViTSpec) -> None:
    """Raises UsageError where a run would go on with another function: its file is another publisher's."""
    # one name can be computed in two ways, by who published the file
    old = None if config.fresh or not has_steps(run) else read_spec(run)
    if old is None:
        return
    changed = differences(json.loads(to_json(old)), json.loads(to_json(spec)))
    if changed:
        raise UsageError(
            f"{run} was trained with a model that computes otherwise ({'; '.join(changed)}), because its weights came "
            f"from another file; pass the old --model.checkpoint and --model.dialect, or --fresh to start it over"
        )


def check_images(run: Path, config: RunConfig, images: specs.PreprocessConfig) -> None:
    """Raises UsageError where a run would go on with images that are prepared otherwise."""
    old = None if config.fresh or not has_steps(run) else read_preprocessing(run)
    if old is None:
        return
    changed = differences(json.loads(to_json(old)), json.loads(to_json(images)))
    if changed:
        raise UsageError(
            f"{run} was trained on images that were prepared otherwise ({'; '.join(changed)}): what is known of its "
            f"weights has changed since; go on with the version of fmjax that it began with, or pass --fresh"
        )


def differences(before: dict, after: dict, prefix: str = "") -> list[str]:
    """What has another value in a record, as field: old -> new."""
    out = []
    for name, value in after.items():
        if isinstance(value, dict) and isinstance(before.get(name), dict):
            out += differences(before[name], value, f"{prefix}{name}.")
        elif before.get(name) != value:
            out.append(f"{prefix}{name}: {before.get(name)!r} -> {value!r}")
    return out
