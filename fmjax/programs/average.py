"""`fmjax average`: a run whose parameters are an average of those of other runs, for `fmjax eval` and `fmjax export`.

Between a run and the weights that it began with this is WiSE-FT (arXiv:2109.01903), of several runs from one start a
model soup (arXiv:2203.05482).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fmjax.config.average import AverageConfig
from fmjax.config.presets import load_preset
from fmjax.console import console
from fmjax.data.split import SPLIT
from fmjax.engine.checkpoint import save_params
from fmjax.engine.metrics import METRICS, Metrics
from fmjax.engine.placement import mesh_of
from fmjax.engine.records import CLASSES, CONFIG, PREPROCESSING, SPEC, config_record
from fmjax.errors import UsageError
from fmjax.programs.members import Member, averaged, opened, whole
from fmjax.programs.soup import greedy, other_images
from fmjax.serial import write_atomically
from fmjax.targets import check_writable
from fmjax.trees import Params

RECORD = "average.json"  # what the run was made of


@dataclass(frozen=True)
class Share:
    """What a run, or its start, has in the average, as the record has it."""

    source: str
    step: int
    weight: float
    score: float | None = None  # of it alone, where that was asked


def main(sources: Sequence[str], config: AverageConfig) -> list[Share]:
    """Writes the average of some sources as a run, and returns what each has in it.

    sources: folders of runs, and at most once the name of the weights that they began with. Raises UsageError for
    runs that differ in more than how they were trained.
    """
    # all that can be refused is, before an array is read
    out = _new_folder(config.out)
    mesh = mesh_of(config.mesh)
    own = load_preset(config.preset).task if config.preset else None
    members = opened(sources, mesh, own)
    scores, alone = {}, {}
    task = members[0].learner.task
    if config.greedy:
        soup = greedy(members, mesh, batch_size=config.batch_size)
        members, alone, scores = soup.members, soup.alone, {task.watch: soup.score}
    weights = _weights(config.weights, members)
    shares = [
        Share(member.name, member.step, weight, alone.get(member.name))
        for member, weight in zip(members, weights, strict=True)
    ]
    # the folder is a run like the first of them, with other parameters
    first = next(member for member in members if member.step)
    _write(out, first, averaged(members, weights), {"scores": scores, "sources": shares})
    for line in other_images(members):
        console.print(line)
    for share in shares:
        console.print(f"average {share.weight:.4g} x {share.source}, step {share.step}")
    if scores:
        console.print(f"val     {task.words(scores)} of the average")
    console.print(
        f"run     {out}; `fmjax eval {out}` scores it, `fmjax export {out} FILE` writes it"
    )
    return shares


def _new_folder(out: str) -> Path:
    """The folder of the new run. Raises UsageError where there is something already."""
    path = Path(out).expanduser()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"--out {out!r} exists; name a folder that is new or empty")
    check_writable(path.parent)
    return path


def _weights(given: Sequence[float], members: Sequence[Member]) -> list[float]:
    """A weight for each member; without any given, the same for all."""
    if not given:
        return [1 / len(members)] * len(members)
    if len(given) != len(members):
        raise UsageError(
            f"--weights has {len(given)} numbers, and there are {len(members)} sources; give one each"
        )
    if not any(weight for weight, member in zip(given, members, strict=True) if member.step):
        raise UsageError(
            f"--weights {' '.join(map(str, given))} leaves out every run, so that nothing has the parts that the start "
            f"lacks; give a run a weight above 0"
        )
    return list(given)


def _write(out: Path, first: Member, params: Params, made: dict[str, Any]) -> None:
    """The run's folder, which is there whole or not at all."""
    part = out.with_name(f".{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    save_params(part, first.step, params)
    # classes, model and held-out images are those of the runs; runs of older versions lack some of the records
    for name in (CLASSES, SPEC, PREPROCESSING, SPLIT):
        if (Path(first.name) / name).is_file():
            shutil.copyfile(Path(first.name) / name, part / name)
    # at its end, as no training goes on from it
    same = {"fresh": False, "from_step": 0, "steps": first.step}
    config = replace(whole(first.config), out=str(out), **same)
    record = made | {"sources": [asdict(share) for share in made["sources"]]}
    write_atomically(part / CONFIG, json.dumps(config_record(config), indent=2) + "\n")
    write_atomically(part / RECORD, json.dumps(record, indent=2) + "\n")
    if made["scores"]:
        row = {f"val_{name}": value for name, value in made["scores"].items()}
        Metrics(part / METRICS, first.step).add({"step": first.step, **row})
    # an empty folder may be there
    if out.exists():
        out.rmdir()
    part.rename(out)
