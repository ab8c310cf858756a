"""The records in a run's folder: written whole, and read like files from a stranger."""

from __future__ import annotations

import json
import reprlib
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

from fmjax import specs
from fmjax.config.data import DataConfig
from fmjax.config.presets import OWN
from fmjax.config.run import RunConfig
from fmjax.config.schemes import SCHEMES
from fmjax.config.tasks import SHIPPED, TaskConfig
from fmjax.data.split import SPLIT, Split, read_split, write_split
from fmjax.engine.steps import has_steps
from fmjax.errors import CheckpointError, UsageError, amount
from fmjax.serial import from_dict, to_json, write_atomically

CONFIG, CLASSES, SPEC = "config.json", "classes.json", "spec.json"
PREPROCESSING = "preprocessing.json"
LATER = ("metrics.jsonl", "curves.png", "confusion.png")
TRACKED = "trackers.jsonl"  # which numbers of the run have gone to which tool
# of an older run in the folder, which a fresh one is not
OF_SCORES = ("predictions.npz", "report.html", TRACKED)
MAX_BYTES = 64 * 2**20  # of a record
MAX_PIXELS = 2**26  # of the images that a run feeds its network
MAX_VALUE = 1_000.0  # of a mean or a standard deviation
MIN_CROP = 0.1  # of the resized picture: less would be a picture of a hundred times the pixels
MAX_THREADS = 1_024
MAX_CLASSES = 1_000_000
MAX_TOKENS = 1_000_000
# No model comes near these sizes: a record that says more is damaged, or made to keep a machine busy
MAX_SIZES = {
    "width": 65_536,
    "depth": 1_000,
    "num_heads": 1_024,
    "mlp_dim": 1_048_576,
    "patch_size": 1_024,
    "num_cls": 1_024,
    "num_registers": 65_536,
    "pool_heads": 1_024,
    "pool_mlp_dim": 1_048_576,
    "embed_dim": 1_048_576,
}
MAY_BE_ZERO = ("num_cls", "num_registers", "pool_heads", "pool_mlp_dim", "embed_dim")


def damaged(path: Path, reason: object) -> CheckpointError:
    """The error for a record that cannot be used."""
    return CheckpointError(
        f"{path} is damaged: {reason}; put back a copy of it, or start the run over with `fmjax finetune ... --fresh`"
    )


def read_run(run: Path, own: TaskConfig | None = None) -> tuple[RunConfig, tuple[str, ...]]:
    """The config and the class names of a run. own: the settings of a task of the user's, which the run may have.

    Raises CheckpointError where the folder holds no run, damaged records, or those of a task that is not known.
    """
    # arrays without records are worse than no run: they cannot be read as what they are
    missing = [name for name in (CONFIG, CLASSES) if not (run / name).is_file()]
    if missing and has_steps(run):
        raise CheckpointError(
            f"{run} has checkpoints and no {' and no '.join(missing)}, so it is not known what they are of; put the "
            f"file back, pass another --out, or start over with `fmjax finetune ... --fresh`"
        )
    if missing:
        raise CheckpointError(
            f"{run} is not the folder of a run: it has no {' and no '.join(missing)}"
        )
    return _config(run / CONFIG, own), _classes(run / CLASSES)


def _config(path: Path, own: TaskConfig | None) -> RunConfig:
    values = _json(path)
    try:
        # apart from the rest: what its settings are depends on whose task it is
        task = _task(path, values.pop("task", None), own) if isinstance(values, dict) else None
        config = from_dict(RunConfig, values)
        config = config if task is None else replace(config, task=task)
    except UsageError as error:
        raise damaged(path, error) from error
    # what is missing has its default, for runs of older versions; without these two it would be another run
    lacking = [name for name in ("model", "data") if name not in values]
    if lacking:
        raise damaged(path, f"it has no {lacking[0]!r}")
    height, width = config.model.image_size
    if height * width > MAX_PIXELS:
        raise damaged(
            path, f"its images of {height} x {width} have more than {MAX_PIXELS:,} pixels"
        )
    if config.data.threads > MAX_THREADS:
        raise damaged(path, f"its {config.data.threads} threads are more than {MAX_THREADS:,}")
    return config


def _task(path: Path, values: Any, own: TaskConfig | None) -> TaskConfig | None:
    """The settings of a run's task; None where the record has none. The code of a task of one's own is never looked for
    where a record says: the user passes it."""
    if values is None:
        return None
    if not isinstance(values, dict) or not isinstance(values.get("home"), str):
        raise UsageError("its task has no home")
    # only those that ship with fmjax, and the one that the user has just passed
    home, settings = (
        values["home"],
        {name: value for name, value in values.items() if name != "home"},
    )
    known = SHIPPED | ({} if own is None else {home_of(own): type(own)})
    if home not in known:
        passed = (
            f", nor the {home_of(own)} that was passed"
            if own is not None and own.home not in SHIPPED
            else ""
        )
        raise CheckpointError(
            f"{path}: the run learns {home!r}, which is no task of fmjax{passed}; pass the file that defines it: "
            f"`fmjax finetune FILE.py` goes on with the run, `fmjax eval RUN --preset FILE.py` scores it"
        )
    return from_dict(known[home], settings)


def home_of(task: TaskConfig) -> str:
    """What a record calls a task: "module:Class"."""
    home = task.home
    if isinstance(home, str):
        return home
    return f"{home.__module__.removeprefix(f'{OWN}.')}:{home.__qualname__}"


def config_record(config: RunConfig) -> dict[str, Any]:
    """A config as JSON has it, the home of its task included."""
    # the home is of the class and no field, and without it nobody could tell what the settings are of
    values = json.loads(to_json(config))
    return values | {"task": {"home": home_of(config.task), **values["task"]}}


def _classes(path: Path) -> tuple[str, ...]:
    names = _json(path)
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names):
        raise damaged(path, "it is not a list of class names")
    # labels are places in the list: of two classes of one name nobody could say which is meant
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise damaged(path, f"it names the class {reprlib.repr(twice[0])} twice")
    if not 2 <= len(names) <= MAX_CLASSES:
        raise damaged(
            path,
            f"it has {amount(len(names), 'class', 'classes')}; a classifier has two to {MAX_CLASSES:,}",
        )
    return tuple(names)


def read_spec(run: Path) -> specs.ViTSpec | None:
    """The spec of a run's model; None for runs of older versions, which have no file of it."""
    path = run / SPEC
    if not path.is_file():
        return None
    try:
        spec = from_dict(specs.ViTSpec, _json(path))
        check_sizes(spec)
    except UsageError as error:
        raise damaged(path, error) from error
    return spec


def check_sizes(spec: specs.ViTSpec) -> None:
    """Raises UsageError for a spec that is no network, or one beyond all measure, before anything is computed."""
    for name, most in MAX_SIZES.items():
        value, least = getattr(spec, name), 0 if name in MAY_BE_ZERO else 1
        if not least <= value <= most:
            raise UsageError(f"{name} is {value}; it must be {least} to {most:,}")
    # what the sizes have to be to each other
    rules = (
        (
            spec.width % spec.num_heads == 0,
            f"width {spec.width} does not divide into {spec.num_heads} heads",
        ),
        (
            min(spec.image_size) >= spec.patch_size,
            f"image_size {spec.image_size} is less than a patch",
        ),
        (
            spec.grid[0] * spec.grid[1] <= MAX_TOKENS,
            f"image_size {spec.image_size} is over {MAX_TOKENS:,} patches",
        ),
        (
            all(0 <= i < spec.num_cls for i in spec.pool_tokens) or spec.pool != "cls",
            "pool_tokens are no class tokens",
        ),
    )
    broken = [sentence for holds, sentence in rules if not holds]
    if broken:
        raise UsageError(broken[0])


def read_preprocessing(run: Path) -> specs.PreprocessConfig | None:
    """How a run's images are brought to its network; None for runs of older versions, which have no record of it."""
    path = run / PREPROCESSING
    if not path.is_file():
        return None
    try:
        images = from_dict(specs.PreprocessConfig, _json(path))
        check_preprocessing(images)
    except UsageError as error:
        raise damaged(path, error) from error
    return images


def check_preprocessing(images: specs.PreprocessConfig) -> None:
    """Raises UsageError for what no weights were ever shown, before a picture is made of it."""
    height, width = images.image_size
    # pixels are 0 to 1, and some networks count them from 0 to 255
    rules = (
        (
            min(height, width) > 0,
            f"image_size is {images.image_size}; it must be two sizes above 0",
        ),
        (
            height * width <= MAX_PIXELS,
            f"image_size {images.image_size} is over {MAX_PIXELS:,} pixels",
        ),
        (
            max(map(abs, images.mean)) <= MAX_VALUE,
            f"mean is {images.mean}; it must be at most {MAX_VALUE:g}",
        ),
        (
            1 / MAX_VALUE <= min(images.std) <= max(images.std) <= MAX_VALUE,
            f"std is {images.std}; it must be above 0, and at most {MAX_VALUE:g}",
        ),
        (
            MIN_CROP <= images.crop_pct <= 1,
            f"crop_pct is {images.crop_pct}; it must be {MIN_CROP} to 1",
        ),
    )
    broken = [sentence for holds, sentence in rules if not holds]
    if broken:
        raise UsageError(broken[0])


def _json(path: Path) -> Any:
    """Raises CheckpointError for a file that is no JSON, or too long or too deep for one of ours."""
    with path.open("rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise damaged(path, f"it has more than {MAX_BYTES:,} bytes")
    try:
        return json.loads(content)
    except RecursionError as error:
        raise damaged(path, "it is nested too deeply") from error
    except ValueError as error:
        raise damaged(path, error) from error


def write_run(
    run: Path,
    config: RunConfig,
    split: Split,
    spec: specs.ViTSpec,
    images: specs.PreprocessConfig,
) -> None:
    """Writes the classes, the spec, the preprocessing, the split and the config; a fresh run's old checkpoints go
    first."""
    # before the new records: a crash in between must not leave old arrays under a new config
    if config.fresh:
        shutil.rmtree(run / "checkpoints", ignore_errors=True)
        for name in OF_SCORES:
            (run / name).unlink(missing_ok=True)
    run.mkdir(parents=True, exist_ok=True)
    # the config last: a folder that has one has all the others
    write_atomically(run / CLASSES, json.dumps(split.classes, indent=2) + "\n")
    write_atomically(run / SPEC, to_json(spec) + "\n")
    write_atomically(run / PREPROCESSING, to_json(images) + "\n")
    write_split(run, split)
    write_atomically(run / CONFIG, json.dumps(config_record(config), indent=2) + "\n")


def split_of(run: Path, classes: tuple[str, ...]) -> Split | None:
    """The recorded split of a run with these classes; None for runs of older versions, which have no record."""
    split = read_split(run)
    if split is not None and split.classes != classes:
        raise damaged(run / CLASSES, f"its classes are not those of {SPLIT}")
    return split


def recorded_split(run: Path, config: RunConfig, share: Path | None) -> Split | None:
    """The split that a run has to use: its own if it goes on, else that of `share`, the run it is compared with.

    None where none is recorded. Raises UsageError where the two runs have different ones.
    """
    goes_on = has_steps(run) and not config.fresh
    own = read_split(run) if goes_on else None
    # a run that stopped before its first checkpoint binds nobody: it may have been started with other settings
    other = read_split(share) if share is not None and has_steps(share) else None
    if own is not None and other is not None and own.digest != other.digest:
        raise UsageError(
            f"{run} and {share} were scored on different images, so they cannot be compared; pass --fresh to start "
            f"both over, or --no-compare-random"
        )
    # a run that goes on without a record drew its parts anew, and does so again
    if own is None and goes_on:
        return None
    return own or other


def export_path(run: Path, config: RunConfig) -> Path:
    """The file that a run writes at its end."""
    return run / f"model.{config.export}.safetensors"


def same_source(one: DataConfig, other: DataConfig) -> bool:
    """Whether two configs name the same images."""
    kinds, places = zip(*(each.source.partition(":")[::2] for each in (one, other)), strict=True)
    # a folder by the place itself: ~, links and relative paths are other names of it
    if kinds[0] == kinds[1] and SCHEMES[kinds[0]].is_path:
        return len({Path(place).expanduser().resolve() for place in places}) == 1
    return one.source == other.source and one.data_dir == other.data_dir
