"""`fmjax ckpt`: the checkpoints of a run, listed, verified, thinned out and exported."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from fmjax.config.presets import load_preset
from fmjax.console import Column, console, show_table
from fmjax.engine import checkpoint, manifest, steps
from fmjax.engine.backbone import preprocessing
from fmjax.engine.lock import held
from fmjax.engine.metrics import METRICS, rows_in
from fmjax.engine.plan import make_task
from fmjax.engine.records import read_run
from fmjax.engine.run import restore
from fmjax.errors import CheckpointError, UsageError, in_bytes
from fmjax.programs.convert import SUFFIX, tell_differences
from fmjax.targets import check_target
from fmjax.tasks.task import Task
from fmjax.weights.export import export

PARTS = ("params", "data")  # of a step, which scoring and exporting need


@dataclass(frozen=True)
class Step:
    """One checkpoint, as `fmjax ckpt ls --json` prints it."""

    step: int
    bytes: int
    saved: str  # local time
    score: float | None  # of the run's task, where the step was scored
    best: bool
    listed: bool  # whether it has digests of its files
    resumable: bool  # whether training can go on from it
    set_aside: bool = False


def ls(run: Path, preset: str = "") -> list[Step]:
    """The steps of a run, and those that were set aside. Raises CheckpointError where there is no run."""
    # which score counts, and which value of it is the best, is the task's
    task = _task(run, preset)
    rows = rows_in(run / METRICS)
    scores = {
        row["step"]: row.get(f"val_{task.watch}") for row in rows if f"val_{task.watch}" in row
    }
    best = steps.best(rows, task.watch, highest=task.highest)
    found = [
        _step(steps.folder(run, step), step, scores.get(step), step == best, set_aside=False)
        for step in steps.committed(run)
    ]
    aside = sorted((run / steps.SET_ASIDE).glob("*"))
    return found + [
        _step(path, int(path.name.partition("-")[0]), None, False, set_aside=True) for path in aside
    ]


def show(found: list[Step]) -> None:
    """The steps as a table."""
    columns = [
        Column("step", [str(one.step) for one in found], right=True),
        Column("size", [in_bytes(one.bytes) for one in found], right=True),
        Column("saved", [one.saved for one in found], rank=1),
        Column("score", [_number(one.score) for one in found], right=True),
        Column("", [_marks(one) for one in found], style="green"),
    ]
    show_table(columns)


def _number(score: float | None) -> str:
    return "" if score is None else f"{score:.4g}"


def _marks(one: Step) -> str:
    marks = (
        (one.best, "best"),
        (one.set_aside, "set aside"),
        (not one.listed, "without digests"),
        (not one.resumable, "parameters only"),
    )
    return ", ".join(word for holds, word in marks if holds)


@dataclass(frozen=True)
class Verdict:
    """What became of one checkpoint, as `fmjax ckpt verify --json` prints it."""

    step: int
    damaged: str  # why; "" where it is good
    bytes: int
    seconds: float
    listed: bool  # whether it has digests of its files

    def words(self) -> str:
        """A line of a terminal."""
        good = f"good ({in_bytes(self.bytes)} in {self.seconds:.1f} s)"
        state = f"damaged: {self.damaged}" if self.damaged else good
        return f"step {self.step}: {state}{'' if self.listed else ', without digests of its files'}"


def verify(run: Path, step: int | None = None, *, as_json: bool = False) -> None:
    """Compares every file and every array of a run's steps, or of one, with its digest, and says what it finds.

    Raises CheckpointError, after all of them, where one is damaged.
    """
    known = steps.committed(run)
    if not known or step not in (None, *known):
        raise CheckpointError(f"{run} has no step {'' if step is None else step}; it has {known}")
    # all of them, so that a person sees what is left
    verdicts = []
    for one in known if step is None else [step]:
        place, start = steps.folder(run, one), time.perf_counter()
        reason = checkpoint.flaw(run, one)
        seconds = time.perf_counter() - start
        found = Verdict(one, reason or "", steps.size(place), seconds, manifest.exists(place))
        verdicts.append(found)
        # a large one takes minutes: each is told when it is known
        if not as_json:
            console.print(found.words())
    if as_json:
        sys.stdout.write(json.dumps([asdict(found) for found in verdicts], indent=2) + "\n")
    damaged = [found.step for found in verdicts if found.damaged]
    if damaged:
        raise CheckpointError(
            f"{run} has damaged steps: {damaged}; the same `fmjax finetune` command goes on from the newest whole one"
        )


def prune(run: Path, *, keep: int, params_only: bool, preset: str = "") -> None:
    """Deletes all steps but the newest `keep` and the best, and those that were set aside, and says what that has
    freed. params_only: of the steps that stay, what only training needs goes too."""
    if keep < 1:
        raise UsageError(f"--keep is {keep}; it must be 1 or more")
    # what stays is decided before anything goes
    found = ls(run, preset)
    whole = [one for one in found if not one.set_aside]
    stay = [one.step for number, one in enumerate(whole) if one.best or number >= len(whole) - keep]
    before = sum(one.bytes for one in found)
    config, _ = read_run(run, load_preset(preset).task if preset else None)
    # the average, where it is what the run hands out
    parts = (*PARTS, "ema") if config.recipe.averages else PARTS
    with held(run):
        for one in whole:
            if one.step not in stay:
                shutil.rmtree(steps.folder(run, one.step))
        shutil.rmtree(run / steps.SET_ASIDE, ignore_errors=True)
        for step in stay if params_only else ():
            _leave(parts, steps.folder(run, step))
    after = sum(steps.size(steps.folder(run, step)) for step in stay)
    console.print(f"kept    steps {stay}, {in_bytes(after)}; freed {in_bytes(before - after)}")


def export_step(
    run: Path, target: str, *, step: int | None, dialect: str, preset: str = "", force: bool = False
) -> None:
    """The model of a step, as a file of a PyTorch dialect."""
    path = check_target(target, SUFFIX, flag="the target", sources=(str(run),), force=force)
    own = load_preset(preset).task if preset else None
    restored = restore(run, step, task=own)
    export(restored, path, dialect)
    console.print(f"{path}: {dialect}, from {run}")
    tell_differences(restored.spec, dialect)


def _task(run: Path, preset: str) -> Task:
    config, _ = read_run(run, load_preset(preset).task if preset else None)
    return make_task(config, preprocessing(config))


def _step(path: Path, step: int, score: float | None, best: bool, *, set_aside: bool) -> Step:
    saved = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(path.stat().st_mtime))
    listed, resumable = manifest.exists(path), (path / "opt").is_dir()
    return Step(step, steps.size(path), saved, score, best, listed, resumable, set_aside)


def _leave(parts: Sequence[str], step: Path) -> None:
    """Leaves a step these parts. The list of files is written anew last, of files that agreed with the old one."""
    reason = manifest.flaw(step, parts) if manifest.exists(step) else ""
    if reason:
        raise CheckpointError(f"{step} is damaged ({reason}); `fmjax ckpt verify` says more")
    for path in step.iterdir():
        if path.is_dir() and path.name not in parts:
            shutil.rmtree(path)
    manifest.write(step)
