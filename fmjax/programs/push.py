"""`fmjax push`: a run -> a folder as a hub has it, and the repository itself where there is a token."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import fmjax
from fmjax import names
from fmjax.config.data import DataConfig
from fmjax.config.push import PushConfig
from fmjax.config.run import RunConfig
from fmjax.config.schemes import scheme_of
from fmjax.console import console
from fmjax.data.split import read_split
from fmjax.deploy import card, hub, transformers_folder
from fmjax.deploy.card import Card
from fmjax.deploy.folder import check_folder, fill, whole_folder
from fmjax.deploy.folders import contents_of
from fmjax.engine.metrics import METRICS, rows_in
from fmjax.errors import UsageError
from fmjax.programs.deploy import Given, is_run, licence_of, of_run
from fmjax.serial import write_atomically

PLACE = "hub"  # the folder in a run that is uploaded
FACTS = "fmjax.json"
PART = 16 * 2**20  # bytes that are read at a time
PACKAGES = ("jax", "flax", "numpy")


def main(run: str, target: str, config: PushConfig) -> Path:
    """Writes the folder of a run, uploads it where the target is a repository and there is a token, and returns it.

    target: a folder, or a repository "owner/name", whose folder is RUN/hub. Raises UsageError for what is no run.
    """
    source = Path(run).expanduser()
    if not is_run(source):
        raise UsageError(f"{run!r} is not the folder of a run; `fmjax export` writes other models")
    repository = target if hub.is_repository(target) else ""
    # what RUN/hub has is of an earlier push, and ours to replace
    place = str(source / PLACE) if repository else target
    folder = check_folder(place, flag="the target", force=config.force or bool(repository))
    given = of_run(source, dtype="float32", classifier=config.classifier)
    command = f"fmjax push {source.name} {repository or Path(target).name}"
    files = write(folder, given, source, config, repository=repository, command=command)
    for name in files:
        console.print(f"{folder / name}: {(folder / name).stat().st_size:,} bytes")
    _send(folder, files, repository, config)
    return folder


def _send(folder: Path, files: Sequence[str], repository: str, config: PushConfig) -> None:
    """Uploads the files that were written, or says why it does not."""
    # other files of the folder stay where they are: nobody asked for them to be sent
    if not repository:
        console.print("a folder, and no repository was named: nothing was uploaded")
        return
    why = "--dry-run" if config.dry_run else hub.obstacle()
    if why:
        console.print(f"nothing was uploaded to {repository}: {why}")
        return
    message = f"Upload from fmjax {fmjax.__version__}"
    address = hub.upload(folder, repository, files=files, private=config.private, message=message)
    console.print(f"uploaded: {address}")


def write(
    folder: Path,
    given: Given,
    run: Path,
    config: PushConfig,
    *,
    repository: str,
    command: str,
) -> list[str]:
    """Writes the folder of a library, with a card, and the facts for machines, all of it or nothing; returns the names
    of the files."""
    # refusals first; the card last, as it has the digests of all other files
    model, dialect = given.model, config.dialect
    contents = contents_of(
        model,
        given.preprocessing,
        dialect=dialect,
        classes=given.classes,
        licence=licence_of(model),
        classifier=config.classifier,
    )
    with whole_folder(folder) as place:
        fill(place, model, contents, dialect=dialect, classifier=config.classifier)
        write_atomically(place / FACTS, json.dumps(facts(given, run), indent=2) + "\n")
        files = {path.name: digest(path) for path in sorted(place.iterdir())}
        kind = contents.texts["config.json"].get("architectures", [""])[0]
        shown = _card(given, run, files, kind=kind, config=config)
        whole = dataclasses.replace(shown, repository=repository, command=command)
        write_atomically(place / card.NAME, whole.text)
    return [*files, card.NAME]


def facts(given: Given, run: Path) -> dict[str, Any]:
    """What a machine may want to know, as JSON."""
    spec = given.model.spec
    return {
        "model": spec.weights or spec.name,
        "image_size": spec.image_size,
        "classes": given.classes,
        "classifier": given.model.classifier_input if given.model.classifier is not None else "",
        "preprocessing": dataclasses.asdict(given.preprocessing),
        "step": given.step,
        "scores": scores(run, given.step),
        "versions": versions(),
    }


def _card(
    given: Given, run: Path, files: Mapping[str, str], *, kind: str, config: PushConfig
) -> Card:
    # the row of the weights that the run began with, which says whose they are
    spec, settings = given.model.spec, given.config or RunConfig()
    rows = [row for row in names.weights_of(spec.name) if row.name == spec.weights]
    if settings.model.init == "random":
        rows = []
    loaded_by = kind if config.dialect in transformers_folder.KINDS else ""
    return Card(
        title=run.resolve().name,
        model=spec.weights or spec.name,
        weights=rows[0] if rows else None,
        classes=given.classes,
        preprocessing=given.preprocessing,
        data=data_of(settings.data),
        training=images_of(run) | training(settings, given.step),
        scores=scores(run, given.step),
        dialect=config.dialect,
        kind=loaded_by,
        repository="",
        files=files,
        versions=versions(),
        command="",
    )


def data_of(config: DataConfig) -> str:
    """The source of the images, without the folders above it: they say more of a person than of the data."""
    scheme, place = scheme_of(config.source)
    # a name of a set is the same for everybody
    if not scheme.is_path:
        return config.source
    return f"{config.source.partition(':')[0]}:{Path(place).name}"


def images_of(run: Path) -> dict[str, object]:
    """How many images a run has learned from and held out, and a digest of which, where it has recorded them."""
    split = read_split(run)
    if split is None:
        return {}
    counts = f"{len(split.train):,} to learn from, {len(split.val):,} held out"
    return {"images": counts, "digest of both lists": split.digest}


def training(config: RunConfig, step: int) -> dict[str, object]:
    """The settings of a run that its reader asks for first."""
    recipe = config.recipe
    return {
        "task": type(config.task).__name__.removesuffix("Config"),
        "step": f"{step} of {config.steps}",
        "images a step": config.batch_size,
        "optimiser": recipe.optimiser,
        "learning rate": recipe.lr,
        "weight decay": recipe.weight_decay,
        "average of the weights": recipe.ema,
        "adapters of rank": recipe.lora_rank,
        "seed": config.seed,
    }


def scores(run: Path, step: int) -> dict[str, float]:
    """The scores of the validation part at a step, by their names."""
    # a step that was done again after a crash may have more rows than one
    rows = [row for row in rows_in(run / METRICS) if row["step"] == step]
    found: dict[str, float] = {}
    for row in rows:
        found |= {name: value for name, value in row.items() if name.startswith("val_")}
    return found


def versions() -> dict[str, str]:
    of_packages = {name: metadata.version(name) for name in PACKAGES}
    return {"fmjax": fmjax.__version__, **of_packages, "Python": platform.python_version()}


def digest(path: Path) -> str:
    """The sha256 of a file, as hubs show it."""
    # in parts: a file of tensors need not fit into memory
    total = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(PART):
            total.update(part)
    return total.hexdigest()
