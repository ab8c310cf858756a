"""Datasets of the Hugging Face hub: which Parquet files one has at a commit, and whether they are on this machine.

What a commit has never changes: it is asked for once and kept in fmjax's cache folder, so that a run goes on, and a set
that is here starts, without the network.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fmjax.errors import CheckpointError
from fmjax.serial import write_atomically
from fmjax.store import addresses
from fmjax.store.huggingface import COMMIT, SILENT, is_inside, matched, patiently, status_of
from fmjax.store.locate import OFFLINE, is_offline
from fmjax.store.network import (
    MEANINGS,
    UnreachableError,
    answering_s,
    contact,
    first_line,
    timeout_s,
    within,
)
from fmjax.store.record import cache_place

# every dataset of the hub whose files it can read is there as Parquet, made by the hub itself
CONVERTED = "refs/convert/parquet"
LARGEST = 1 << 28  # bytes of a list that was kept; a file takes 60
NEWEST = ""  # in the place of a commit


class NoDatasetError(CheckpointError):
    """The hub has no such dataset, or not for this user: what was kept of it does not help."""


@dataclass(frozen=True)
class Listing:
    """The Parquet files of a dataset at a commit: path -> bytes.

    whole: whether these are all, which is not known of what another program has left in the hub's cache.
    """

    repository: str
    commit: str
    files: dict[str, int]
    whole: bool = True


def at(repository: str, commit: str) -> Listing:
    """What a dataset has at a commit, without the network where that was asked before. Raises CheckpointError."""
    found = _kept(repository, commit)
    if found:
        return found
    try:
        return _keep(_asked(repository, commit))
    except UnreachableError:
        left = _left(repository)
        if left and left.commit == commit:
            return left
        raise


def newest(repository: str) -> tuple[Listing, str]:
    """(what a dataset has now, ""); where the hub cannot be asked, what it had when it last was, and why.

    Raises CheckpointError where nothing is known of it.
    """
    try:
        found = _keep(_asked(repository, CONVERTED))
        _write(repository, NEWEST, {"commit": found.commit})
        return found, ""
    except NoDatasetError:
        raise
    except CheckpointError as error:
        # hours of a hub's own trouble need not be anybody else's
        found = _last(repository) or _left(repository)
        if found is None:
            raise
        return found, str(error)


def folder(listing: Listing) -> Path:
    """Where the hub's cache has the files of a commit."""
    return _cache(listing.repository) / "snapshots" / listing.commit


def missing(listing: Listing, names: Sequence[str]) -> list[str]:
    """The files that are not in the hub's cache as they should be."""
    root = folder(listing)
    return [name for name in names if _size(root / name) != listing.files[name]]


def fetch(listing: Listing, names: Sequence[str]) -> Path:
    """The folder of a commit in the hub's cache, in which those files are now. Raises CheckpointError."""
    from huggingface_hub import snapshot_download

    # the client itself would ask for the commit each time
    wanted = missing(listing, names)
    if not wanted:
        return folder(listing)
    try:
        snapshot_download(
            listing.repository,
            repo_type="dataset",
            revision=listing.commit,
            allow_patterns=wanted,
        )
    except Exception as error:  # the hub's own, and those of the network
        raise CheckpointError(first_line(error)) from error
    # the client takes what a broken download has left for the set, where nobody answers
    lacking = missing(listing, wanted)
    if lacking:
        raise CheckpointError(
            f"{len(lacking):,} of its {len(names):,} files are not whole in {folder(listing)}"
        )
    return folder(listing)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _cache(repository: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"datasets--{repository.replace('/', '--')}"


def _asked(repository: str, revision: str) -> Listing:
    """What the hub says of a revision. Raises NoDatasetError, UnreachableError or another CheckpointError."""
    from huggingface_hub import HfApi, constants

    # the client has read its own setting when it was imported
    if constants.HF_HUB_OFFLINE or is_offline():
        raise UnreachableError(f"nothing is fetched offline ({' or '.join(OFFLINE)} is set)")
    addresses.check(constants.ENDPOINT, "HF_ENDPOINT")
    contact(constants.ENDPOINT)

    def ask() -> Any:
        api = HfApi()
        options: Any = {"revision": revision, "files_metadata": True, "timeout": timeout_s()}
        return within(answering_s(), lambda: api.dataset_info(repository, **options))

    def explain(error: Exception) -> CheckpointError:
        return _explained(error, repository, revision)

    return _listed(patiently(ask, explain), repository, revision)


def _listed(info: Any, repository: str, revision: str) -> Listing:
    """An answer of the hub, of which nothing is believed: names become parts of paths and addresses."""
    # a mirror that does not know commits would give what it has under any name
    commit = matched(COMMIT, info.sha)
    if commit is None or (COMMIT.fullmatch(revision) and commit != revision):
        raise NoDatasetError(
            f"the hub answers for {repository} with the commit {str(info.sha)[:80]!a}, not {revision}: set HF_ENDPOINT "
            f"to another mirror"
        )
    rows = {file.rfilename: file.size for file in info.siblings or ()}
    files = {name: size for name, size in rows.items() if name.endswith(".parquet")}
    wrong = [name for name, size in files.items() if not (is_inside(name) and _is_size(size))]
    if wrong:
        raise NoDatasetError(
            f"the hub lists {wrong[0][:80]!a} of {repository}, with {str(files[wrong[0]])[:20]!a} bytes, which is no "
            f"file of a dataset: set HF_ENDPOINT to another mirror"
        )
    return Listing(repository, commit, files)


def _is_size(value: Any) -> bool:
    return type(value) is int and value >= 0


def _explained(error: Exception, repository: str, revision: str) -> CheckpointError:
    """The reason in one sentence, and its fix."""
    from huggingface_hub import constants, errors

    # the client's own kinds first, of which a gated dataset is one that is not found, then any status
    host, status = addresses.place(constants.ENDPOINT), status_of(error)
    if isinstance(error, errors.GatedRepoError):
        return NoDatasetError(
            f"it is gated: accept its licence at {constants.ENDPOINT}/datasets/{repository}, then run `hf auth login` "
            f"or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError) and COMMIT.fullmatch(revision):
        return NoDatasetError(
            f"{host} has no commit {revision} of it any more: leave @COMMIT out for the present one, with --fresh for "
            f"a run that has begun"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return NoDatasetError(
            f"{host} has not made Parquet files of it: download its own files and pass them as parquet:, wds: or "
            f"folder:"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return NoDatasetError(
            f"{host} has no such dataset for you: check the name and HF_ENDPOINT, or run `hf auth login` if it is "
            f"private"
        )
    if status is not None:
        meaning = MEANINGS.get(status, "error")
        return CheckpointError(f"{host} answered {status} ({meaning}): run the same command later")
    if type(error).__name__ in SILENT:
        return UnreachableError(f"{host} did not answer ({type(error).__name__})")
    return CheckpointError(f"{host}: {type(error).__name__}: {first_line(error)}")


def _place(repository: str, commit: str) -> Path:
    from huggingface_hub import constants

    # another mirror may have other datasets under the same names
    key = json.dumps([constants.ENDPOINT, repository, commit])
    return cache_place("hub", key, ".json")


def _keep(listing: Listing) -> Listing:
    """The same, which is kept from now on."""
    rows = {"commit": listing.commit, "files": listing.files}
    _write(listing.repository, listing.commit, rows)
    return listing


def _write(repository: str, commit: str, rows: dict[str, Any]) -> None:
    """Where that cannot be written, nothing is kept: the hub is asked the next time, too."""
    try:
        write_atomically(_place(repository, commit), json.dumps(rows) + "\n")
    except OSError:
        return


def _kept(repository: str, commit: str) -> Listing | None:
    # read like a file from a stranger: its names become parts of paths
    found = _json(_place(repository, commit))
    files = found.get("files")
    if found.get("commit") != commit or not isinstance(files, dict):
        return None
    right = all(is_inside(name) and _is_size(size) for name, size in files.items())
    return Listing(repository, commit, files) if right else None


def _last(repository: str) -> Listing | None:
    """What the hub had when it was last asked."""
    commit = matched(COMMIT, str(_json(_place(repository, NEWEST)).get("commit")))
    return _kept(repository, commit) if commit else None


def _left(repository: str) -> Listing | None:
    """What another program, or an older version, has left in the hub's cache."""
    try:
        text = (_cache(repository) / "refs" / CONVERTED).read_text().strip()
    except OSError:
        return None
    # links to the contents, named as the repository names its files
    commit = matched(COMMIT, text)
    root = _cache(repository) / "snapshots" / (commit or "none")
    paths = [path for path in root.rglob("*.parquet") if path.is_file()]
    files = {path.relative_to(root).as_posix(): path.stat().st_size for path in paths}
    return Listing(repository, commit, files, whole=False) if commit and files else None


def _json(path: Path) -> dict[str, Any]:
    """What was kept; {} where there is nothing, or nothing that can be used."""
    try:
        if os.stat(path).st_size > LARGEST:
            return {}
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
