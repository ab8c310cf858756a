"""`hf:NAME`: a Hugging Face dataset: a folder that `save_to_disk` wrote, or the name of one on the hub."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from fmjax.config.data import ImagesConfig
from fmjax.data.arrow import rows_of
from fmjax.data.example import Splits
from fmjax.data.folders import ROLES, few, part_asked_for
from fmjax.data.images import regular_file
from fmjax.data.labels import splits_of
from fmjax.data.shards import by_part
from fmjax.data.sources.parquet import parquet_files
from fmjax.data.streams import streamed
from fmjax.errors import CheckpointError, DataError, UsageError, escaped
from fmjax.store.datasets import CONVERTED, Listing, at, fetch, newest
from fmjax.store.ranges import Remote

PARTS, STATE = "dataset_dict.json", "state.json"  # of save_to_disk
MAX_BYTES = 1 << 24  # of either
NAME = re.compile(
    r"(?P<repository>([\w.-]+/)?[\w.-]+)(:(?P<config>[\w.-]+))?(@(?P<commit>[0-9a-f]{40}))?",
    re.ASCII,
)
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
    if not path.exists():
        # the mark of a part is no part of a name
        name = place.rpartition("#")[0] if wanted else place
        return _of_hub(name, config, known, wanted)
    if config.stream:
        raise UsageError(
            f"--data.stream is for datasets of the hub, and hf:{escaped(place)} is on this machine; leave it out"
        )
    if (path / PARTS).is_file() or (path / STATE).is_file():
        return _saved(path, config, known, wanted)
    return parquet_files(path, config, classes=known, wanted=wanted, scheme="hf")


def _of_hub(name: str, config: ImagesConfig, known: Sequence[str], wanted: str) -> Splits:
    """A dataset of the hub, at the commit that is named or found now."""
    # the same files in both cases, under the same names: only where they lie differs
    found = found_at(name)
    options = {"classes": known, "wanted": wanted}
    if config.stream:
        splits = streamed(_remotes(found), config, where=f"hf:{found.pinned}", **options)
    else:
        splits = parquet_files(downloaded(found), config, scheme="hf", **options)
    part = f"#{wanted}" if wanted else ""
    return replace(splits, notes=(*found.notes, *splits.notes), source=f"hf:{found.pinned}{part}")


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


@dataclass(frozen=True)
class Found:
    """A dataset of the hub at a commit. name: as it was asked for. chosen: its configuration."""

    name: str
    chosen: str
    listing: Listing
    notes: tuple[str, ...] = ()

    @property
    def pinned(self) -> str:
        """What names the same files for good."""
        return f"{self.name.partition('@')[0]}@{self.listing.commit}"

    @property
    def files(self) -> list[str]:
        """The files of the configuration."""
        return sorted(file for file in self.listing.files if file.startswith(f"{self.chosen}/"))


def found_at(name: str) -> Found:
    """The files of OWNER/NAME, of :CONFIG where it has several, at @COMMIT, without which they are those of now, or,
    where the hub cannot be asked, those that it had when it last was. Raises DataError where there is none."""
    # looked at before anything is asked: what is wrong with a name no network mends
    parts = NAME.fullmatch(name)
    if not parts:
        raise DataError(
            f"hf:{escaped(name)} is no folder and no name of a dataset; pass hf:DIR, hf:OWNER/NAME or "
            f"hf:OWNER/NAME:CONFIG@COMMIT, where a COMMIT has 40 hexadecimal digits"
        )
    repository, commit, reason = parts["repository"], parts["commit"], ""
    with _fetching(name):
        if commit:
            listing = at(repository, commit)
        else:
            listing, reason = newest(repository)
    # a commit is named by the configuration of its own files, as an older one may have had others
    found = Found(name, _configuration(name, listing, parts["config"] or ""), listing)
    notes = [] if commit else [_note(found, reason)]
    # what another program has fetched may be a part of the set
    if not listing.whole:
        notes.append(f"whether these are all files of hf:{name} is not known without the hub")
    return replace(found, notes=tuple(notes))


def _note(found: Found, reason: str) -> str:
    """At which commit a dataset is taken that was asked for without one."""
    when = "the newest one"
    if reason:
        when = f"the last that is known, as {reason}"
    commit = found.listing.commit
    return f"hf:{found.name} is taken at the commit {commit}, {when}; a run goes on with it"


@contextmanager
def _fetching(name: str) -> Iterator[None]:
    """What the hub or its cache has not, as an error of the data."""
    try:
        yield
    except CheckpointError as error:
        raise DataError(
            f"hf:{escaped(name)} cannot be fetched: {error}; check the name and the network, or download its Parquet "
            f"files elsewhere and pass parquet:DIR"
        ) from error


def _configuration(name: str, listing: Listing, wanted: str) -> str:
    """The configuration that is asked for, the only one, or the one called default. Raises DataError for another."""
    # CONFIG/PART/0000.parquet: what lies elsewhere the hub has not made
    made = [file.split("/") for file in listing.files if file.count("/") == 2]
    every = sorted({steps[0] for steps in made})
    if not every:
        raise DataError(
            f"hf:{escaped(name)} has no CONFIG/PART/0000.parquet at the commit {listing.commit}; name one of "
            f"{CONVERTED}, where the hub puts its Parquet files, or leave @COMMIT out"
        )
    # as the hub itself calls the configuration of a dataset that has one
    chosen = wanted or "default"
    if len(every) == 1 and not wanted:
        chosen = every[0]
    if chosen not in every:
        bare = escaped(name.partition("@")[0].partition(":")[0])
        raise DataError(
            f"hf:{escaped(name)} has the configurations {few(every)}; name one of them, as in hf:{bare}:{every[0]}"
        )
    partial = sorted({part for config, part, _ in made if config == chosen and _is_partial(part)})
    if partial:
        raise DataError(
            f"hf:{escaped(name)} has only the first 5 GB of {few(partial)} as Parquet; download its own files and pass "
            f"them as parquet:, wds: or folder:"
        )
    return chosen


def _is_partial(part: str) -> bool:
    return part.startswith(PARTIAL)


def downloaded(found: Found) -> Path:
    """The folder of a dataset's Parquet files, fetched where they are not here yet. Raises DataError."""
    with _fetching(found.name):
        return fetch(found.listing, found.files) / found.chosen


def _remotes(found: Found) -> dict[str, list[tuple[str, Remote]]]:
    """The files of each part on the hub, under the names that they have where they are fetched."""
    from huggingface_hub import hf_hub_url

    # addressed by the commit, so that a dataset that changes in between gives the same bytes or none
    listing, root = found.listing, PurePosixPath(found.chosen)
    out: dict[str, list[tuple[str, Remote]]] = {}
    for role, files in by_part(root, [PurePosixPath(file) for file in found.files]).items():
        for file in files:
            address = hf_hub_url(
                listing.repository, str(file), repo_type="dataset", revision=listing.commit
            )
            remote = Remote(address, listing.files[str(file)], commit=listing.commit)
            out.setdefault(role, []).append((file.relative_to(root).as_posix(), remote))
    return out
