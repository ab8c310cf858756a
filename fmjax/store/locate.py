"""Published weights -> a local file whose content is the one that was published, or that its first use recorded."""

from __future__ import annotations

import datetime as dt
import importlib.resources
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from filelock import Timeout

from fmjax import names
from fmjax.errors import CheckpointError, safe
from fmjax.specs import Source, Weights
from fmjax.store import addresses, digests, http, huggingface, record
from fmjax.store.http import Bounds, Copy
from fmjax.store.network import UnreachableError

OFFLINE = ("FMJAX_OFFLINE", "HF_HUB_OFFLINE")
TRUE = ("1", "ON", "YES", "TRUE")
# more than any file of a tower has: in float32 four times over (a text tower, an average, an optimiser's state), and a
# vocabulary's table
TIMES, EXTRA_BYTES = 4, 4 << 30


@dataclass(frozen=True)
class Located:
    """A file of published weights on this machine, checked."""

    path: Path
    source: Source
    sha256: str
    size: int
    revision: str | None


def locate(weights: Weights, *, offline: bool = False) -> tuple[Path, Source]:
    """The file of some published weights and the source it came from: this package, a cache, or fetched now.

    Raises CheckpointError with the reason of every source, its fix, and the way to pass a file.
    """
    found = obtain(weights, offline=offline)
    return found.path, found.source


def is_offline() -> bool:
    """Whether the environment says that nothing is to be fetched."""
    return any(os.environ.get(name, "").upper() in TRUE for name in OFFLINE)


def obtain(
    weights: Weights, *, offline: bool = False, accept_new: bool = False, anew: bool = False
) -> Located:
    """As locate, with the facts of the file. accept_new: what a source has now takes the place of what was recorded.
    anew: the file is hashed also where it looks unchanged."""
    offline = offline or is_offline()
    sources, reasons, found = in_order(weights), [], None
    # a copy that is right anywhere comes before a fetch from a better source
    if offline or not accept_new:
        found = _first_local(sources, reasons, offline=offline, anew=anew)
    if found is None and not offline:
        found = _first_fetched(weights, sources, reasons, accept_new=accept_new, anew=anew)
    if found is None:
        raise CheckpointError(_no_source(weights, sources, reasons, offline=offline))
    # what was wrong with the sources before is told also where a later one had the file
    for reason in reasons:
        _note(f"{weights.name}: {reason}")
    if found.source.kind != "package":
        _show_licence(weights, found.source)
    return found


def in_order(weights: Weights) -> list[Source]:
    """The sources as they are tried: this package, safetensors on the hub, then as in the row; NGC has no download."""

    def rank(source: Source) -> int:
        if source.kind == "hf" and source.filename.endswith(".safetensors"):
            return 1
        return {"package": 0, "ngc": 3}.get(source.kind, 2)

    return sorted(weights.sources, key=rank)


def package_file(name: str) -> Path:
    """A file that ships inside this package."""
    return Path(str(importlib.resources.files("fmjax"))) / name


def cached(source: Source) -> Copy | None:
    """The copy of a source on this machine, not checked; None where there is none."""
    if source.kind == "hf":
        return huggingface.cached(source, source.revision or _first_use(source).get("revision"))
    if source.kind == "ngc":
        return None
    path = package_file(source.location) if source.kind == "package" else _url_file(source)
    return Copy(path) if path.is_file() else None


def _first_local(
    sources: Sequence[Source], reasons: list[str], *, offline: bool, anew: bool
) -> Located | None:
    """The first source's copy on this machine that is right."""
    for source in sources:
        found = _local_copy(source, reasons, offline=offline, anew=anew)
        if found is not None:
            return found
    return None


def _local_copy(
    source: Source, reasons: list[str], *, offline: bool, held: bool = False, anew: bool = False
) -> Located | None:
    """The copy on this machine, checked. A wrong one is deleted where it can be fetched again, and only by the process
    that holds the lock of the file."""
    known, copy = _first_use(source), cached(source)
    if copy is None:
        return None
    # of a hub's file without a commit, only the hub can say whether the copy is what main has
    pinned = source.kind != "hf" or source.revision or known.get("revision")
    if not pinned and not offline:
        return None
    digest = digests.sha256(copy.path, anew=anew)
    problem = digests.wrong(digest, source, copy, known)
    if not problem:
        return _recorded(source, copy, digest)
    if source.kind == "package":
        fix = "install fmjax again"
    elif offline:
        fix = "fetch it again where its host can be reached"
    elif not held:
        return None  # another process may be at it: looked at again under the lock
    else:
        huggingface.remove(copy.path)
        fix = "it was deleted, to be fetched again"
    reasons.append(f"{copy.path}: {problem}: {fix}")
    return None


def _first_fetched(
    weights: Weights, sources: Sequence[Source], reasons: list[str], *, accept_new: bool, anew: bool
) -> Located | None:
    """The file of the first source that has it. A host that gave no answer is not asked again."""
    # each source gives a file or a reason; a host that is silent makes the user wait ten seconds, once
    silent = set()
    for source in sources:
        host = _host(source)
        if source.kind in ("package", "ngc") or host in silent:
            found = _local_copy(source, reasons, offline=True, anew=anew)
        else:
            try:
                found = _fetched_under_lock(
                    weights, source, reasons, accept_new=accept_new, anew=anew
                )
            except UnreachableError as error:
                silent.add(host)
                reasons.append(str(error))
                found = _local_copy(source, reasons, offline=True, anew=anew)
            except CheckpointError as error:
                reasons.append(str(error))
                found = None
        if found:
            return found
    return None


def _fetched_under_lock(
    weights: Weights, source: Source, reasons: list[str], *, accept_new: bool, anew: bool
) -> Located:
    """The file, fetched by one process of this machine while the others wait."""
    # a second is waited without a word, then the user is told why nothing happens
    with ExitStack() as stack:
        try:
            lock = record.held(_key(source))
            try:
                stack.enter_context(lock.acquire(timeout=1))
            except Timeout:
                _note(
                    f"{_label(source)}: another process is fetching it, waiting (its lock: {lock.lock_file})"
                )
                stack.enter_context(lock)
        except OSError as error:
            if source.kind == "url":  # files of the hub have another folder, and locks there
                raise CheckpointError(http.unwritable(record.cache_folder(), error)) from error
        if accept_new:
            return _fetched_and_checked(weights, source, {})
        # the process that held the lock may have fetched it
        copy = _local_copy(source, reasons, offline=False, held=True, anew=anew)
        return copy or _fetched_and_checked(weights, source, _first_use(source))


def _fetched_and_checked(weights: Weights, source: Source, known: dict[str, Any]) -> Located:
    """The file from its host; one that is wrong is deleted and fetched once more."""
    # twice the same wrong content is no accident of the network: the file has changed at its host
    seen, problem = [], ""
    for _ in range(2):
        copy = _download(weights, source, known)
        seen.append(digests.sha256(copy.path))
        problem = digests.wrong(seen[-1], source, copy, known)
        if not problem:
            return _recorded(source, copy, seen[-1])
        huggingface.remove(copy.path)
    if seen[0] == seen[1] and digests.changed(seen[1], source, known):
        raise CheckpointError(
            f"{_label(source)} has changed: {problem}; if the new content is trusted, run "
            f"{huggingface.ACCEPT % weights.name}, else use a copy of the old file as checkpoint"
        )
    raise CheckpointError(
        f"{_label(source)} was fetched twice and is wrong: {problem}; nothing was kept, try another network or mirror"
    )


def _download(weights: Weights, source: Source, known: dict[str, Any]) -> Copy:
    """The file from its host, checked for nothing but its size."""
    most = TIMES * 4 * names.get_spec(weights.model).parameters + EXTRA_BYTES
    if source.kind == "hf":
        return huggingface.fetch(
            source, source.revision or known.get("revision"), name=weights.name, most=most
        )
    path = _url_file(source)
    http.download(addresses.mirrored(source.location), path, bounds=Bounds(most))
    return Copy(path)


def _recorded(source: Source, copy: Copy, digest: str) -> Located:
    """The facts of a file that is right, recorded when they are new."""
    found = Located(copy.path, source, digest, copy.path.stat().st_size, copy.revision)
    facts = {"sha256": digest, "size": found.size, "revision": found.revision}
    # what ships in this package is known by the package itself
    known = _first_use(source)
    if source.kind != "package" and {key: known.get(key) for key in facts} != facts:
        today = dt.datetime.now(dt.UTC).date().isoformat()
        try:
            record.put("files", _key(source), facts | {"first_used": today})
        except OSError as error:
            _note(
                f"{_label(source)} is not recorded: {http.unwritable(record.cache_folder(), error)}"
            )
    return found


def _show_licence(weights: Weights, source: Source) -> None:
    """One line, the first time that these weights are used on this machine."""
    licence = weights.licence + (" (non-commercial)" if "-NC" in weights.licence else "")
    # the page that a person can read it on: the hub's, where any source is there
    repository = next((s.location for s in (source, *weights.sources) if s.kind == "hf"), "")
    home = f"{huggingface.HOME}/{repository}" if repository else addresses.shown(source.location)
    try:
        new = record.put("licences_shown", weights.name, weights.licence)
    except OSError:
        new = True
    if new:
        _note(f"{weights.name}: {licence} - {home}")


def _no_source(
    weights: Weights, sources: Sequence[Source], reasons: list[str], *, offline: bool
) -> str:
    """What to do where none of the sources gave a file, and below it the reason of each."""
    # a file by hand always helps, so it comes first
    own = f'pass the file as checkpoint="/path/to/{sources[0].filename}" (--checkpoint)'
    reasons = reasons + [_ngc(source) for source in sources if source.kind == "ngc"]
    first = f"{weights.name} could not be fetched: {own}, or mend one of these:"
    if offline and any(source.kind in ("hf", "url") for source in sources):
        first = (
            f"{weights.name} is not in the local cache and nothing is fetched offline (--offline, FMJAX_OFFLINE=1, "
            f"HF_HUB_OFFLINE=1): {own}, or run `fmjax download {weights.name}` where there is a network"
        )
    return "\n  ".join([first, *reasons])


def _ngc(source: Source) -> str:
    command = "NVIDIA's `ngc` tool"
    if source.location:
        command = f"`ngc registry model download-version {source.location}`"
    where = f"{source.filename} is published on NVIDIA NGC, which asks for an account"
    return f"{where}: fetch it with {command}"


def _first_use(source: Source) -> dict[str, Any]:
    """What the first use of a file recorded; empty before it."""
    return record.get("files", _key(source)) or {}


def _key(source: Source) -> str:
    """What a file is recorded under: a row that pins another revision means another file."""
    return _label(source) + (f" @{source.revision}" if source.revision else "")


def _label(source: Source) -> str:
    if source.kind != "url":
        return f"{source.location} {source.filename}"
    return addresses.anonymous(source.location)


def _host(source: Source) -> str:
    return (
        str(urlsplit(addresses.mirrored(source.location)).netloc)
        if source.kind == "url"
        else source.kind
    )


def _url_file(source: Source) -> Path:
    """Where the file of an address is kept: under its host and path."""
    # by its host and path and not by its name alone: two hosts may both have a model.safetensors
    parts = urlsplit(addresses.anonymous(source.location))
    steps = [step for step in parts.path.split("/") if step not in ("", ".", "..")]
    return record.cache_folder().joinpath("files", parts.netloc.replace(":", "_"), *steps)


def _note(text: str) -> None:
    sys.stderr.write(safe(text + "\n"))
