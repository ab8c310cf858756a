"""`hf:NAME`: a Hugging Face dataset: a folder that `save_to_disk` wrote, or the name of one on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from fmjax.config.data import ImagesConfig
from fmjax.data.arrow import rows_of
from fmjax.data.example import Splits
from fmjax.data.folders import ROLES, few, part_asked_for
from fmjax.data.images import regular_file
from fmjax.data.labels import splits_of
from fmjax.data.sources.parquet import parquet_files
from fmjax.errors import DataError, escaped

PARTS, STATE = "dataset_dict.json", "state.json"  # of save_to_disk
MAX_BYTES = 1 << 24  # of either
# every dataset of the hub whose files it can read is there as Parquet, made by the hub itself
CONVERTED = "refs/convert/parquet"
NAME = re.compile(r"([\w.-]+/)?[\w.-]+(:[\w.-]+)?")
PARTIAL = "partial-"  # begins a part of which the hub has converted the first 5 GB only


def open_examples(
    place: str,
    config: ImagesConfig,
    *,
    classes: Sequence[str] | None = None,
) -> Splits:
    """The dataset of a name. classes: those that there may be, in their order."""
    path, wanted = part_asked_for(place)
    known = classes or ()
    if (path / PARTS).is_file() or (path / STATE).is_file():
        return _saved(path, config, known, wanted)
    if path.exists():
        return parquet_files(path, config, classes=known, wanted=wanted, scheme="hf")
    # the mark of a part is no part of a name
    name = place.rpartition("#")[0] if wanted else place
    return parquet_files(downloaded(name), config, classes=known, wanted=wanted, scheme="hf")


def _saved(path: Path, config: ImagesConfig, known: Sequence[str], wanted: str) -> Splits:
    """What save_to_disk has written: a set, or a folder with one for each part."""
    parts, declared = {}, ()
    for role, folder in _folders(path).items():
        # in the order that the state has them in
        rows = _json(folder / STATE).get("_data_files")
        found = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        files = [folder / PurePosixPath(str(row.get("filename", ""))).name for row in found]
        if not files:
            raise DataError(
                f"{escaped(str(folder / STATE))} names no files; save the dataset again"
            )
        parts[role], listed = rows_of(path, files, files, config)
        declared = declared or listed
    return splits_of(parts, where=escaped(str(path)), known=known, declared=declared, wanted=wanted)


def _folders(path: Path) -> dict[str, Path]:
    if not (path / PARTS).is_file():
        return {"": path}
    names = [str(name) for name in _json(path / PARTS).get("splits", [])]
    unknown = [name for name in names if name.lower() not in ROLES]
    if unknown or not names:
        raise DataError(
            f"{escaped(str(path))} has the parts {few(names) or 'none'}; they must be train, validation or test: save "
            f"them under these names, or pass one as hf:{escaped(str(path))}/PART"
        )
    return {ROLES[name.lower()]: path / PurePosixPath(name).name for name in names}


def _json(path: Path) -> dict[str, Any]:
    try:
        with regular_file(path) as file:
            values = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{escaped(str(path))} is damaged: {escaped(str(error), 120)}; save the dataset again"
        ) from error
    return values if isinstance(values, dict) else {}


def downloaded(name: str) -> Path:
    """The folder of a hub dataset's Parquet files, fetched where they are not here yet. name: OWNER/NAME, and :CONFIG
    where it has several. Raises DataError where it cannot be had."""
    if not NAME.fullmatch(name):
        raise DataError(
            f"hf:{escaped(name)} is no folder and no name of a dataset; pass hf:DIR or hf:OWNER/NAME"
        )
    from huggingface_hub import snapshot_download

    # what is in the hub's cache is not fetched again, and without a network nothing else is asked for
    repository, _, wanted = name.partition(":")
    options: dict[str, Any] = {"repo_type": "dataset", "revision": CONVERTED}
    try:
        chosen = wanted or _configuration(name, options)
        root = snapshot_download(repository, allow_patterns=f"{chosen}/*/*.parquet", **options)
    except DataError:
        raise
    except Exception as error:  # the hub's own, and those of the network
        reason = escaped(
            str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__, 200
        )
        raise DataError(
            f"hf:{escaped(name)} cannot be fetched: {reason}; check the name and the network, or download its Parquet "
            f"files elsewhere and pass parquet:DIR"
        ) from error
    folder = Path(root) / chosen
    partial = sorted(path.name for path in folder.glob(f"{PARTIAL}*"))
    if partial:
        raise DataError(
            f"hf:{escaped(name)} has only the first 5 GB of {few(partial)} as Parquet; download its own files and pass "
            f"them as parquet:, wds: or folder:"
        )
    return folder


def _configuration(name: str, options: dict[str, Any]) -> str:
    """The only configuration of a dataset, or the one called default."""
    from huggingface_hub import HfApi

    files = HfApi().list_repo_files(name, **options)
    found = sorted({file.split("/")[0] for file in files if file.endswith(".parquet")})
    if "default" in found or len(found) == 1:
        return "default" if "default" in found else found[0]
    raise DataError(
        f"hf:{escaped(name)} has the configurations {few(found) or 'none'}; name one of them, as in "
        f"hf:{escaped(name)}:{(found or ['NAME'])[0]}"
    )
