"""Files of Hugging Face repositories: what the hub says of them through huggingface_hub, with its tokens and mirrors
(HF_ENDPOINT), their bytes by our own download, into its cache.

huggingface_hub makes paths of what a host answers (a commit, an ETag) and asks it more than once, so that a mirror
could have it write anywhere. Here the facts are asked for once and checked; no path is made of anything else.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from fmjax.errors import CheckpointError
from fmjax.specs import Source
from fmjax.store import addresses
from fmjax.store.http import Bearer, Bounds, Copy, download, unwritable
from fmjax.store.network import (
    AGAIN,
    MEANINGS,
    UnreachableError,
    answering_s,
    contact,
    first_line,
    rest,
    retry_after,
    timeout_s,
    within,
)

HOME = "https://huggingface.co"
COMMIT = re.compile(r"[0-9a-f]{40}")
# git's sha1 of a small file, the sha256 of a large one
ETAG = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REPOSITORY = re.compile(r"(?:[\w-][\w.-]{0,95}/)?[\w-][\w.-]{0,95}", re.ASCII)
ACCEPT = "`fmjax download %s --accept-new`"
# of httpx, requests
SILENT = (
    "ConnectError",
    "ConnectTimeout",
    "ReadTimeout",
    "PoolTimeout",
    "ProxyError",
    "TimeoutError",
)
T = TypeVar("T")


def cached(source: Source, revision: str | None) -> Copy | None:
    """The copy in huggingface_hub's cache, of a commit or of the last known main; None where it has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    _check(source, revision)
    try:
        path = Path(
            hf_hub_download(
                source.location, source.filename, revision=revision, local_files_only=True
            )
        )
    except LocalEntryNotFoundError:
        return None
    folder = path.parents[source.filename.count("/")]
    # the cache names its blobs by the hub's ETag, which is the sha256 of a large file
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return Copy(path, matched(COMMIT, folder.name), matched(ETAG, blob))


def fetch(source: Source, revision: str | None, *, name: str, most: int) -> Copy:
    """The copy of a commit (None: of what main is now), fetched unless it is cached. most: bytes that it can have.

    Raises CheckpointError with the reason and its fix; UnreachableError, within ten seconds, where the hub gives no
    answer.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    _check(source, revision)
    commit, etag, size = _facts(source, revision, name=name)
    here = cached(source, commit)
    if here is not None:
        return Copy(here.path, commit, etag)
    # the client's own layout, so that its other users find the file: contents by ETag, links to them by commit
    cache = Path(constants.HF_HUB_CACHE)
    folder = f"models--{source.location.replace('/', '--')}"
    blob = cache / folder / "blobs" / etag
    pointer = cache / folder / "snapshots" / commit / source.filename
    token = build_hf_headers().get("authorization")
    try:
        with _held(cache / ".locks" / folder / f"{etag}.lock"):
            # the client's own lock: it may be at the same file
            if not blob.exists():
                download(
                    hf_hub_url(source.location, source.filename, revision=commit),
                    blob,
                    bounds=Bounds(most, size),
                    secret=Bearer(token) if token else None,
                )
            _point(pointer, blob)
    except OSError as error:
        raise CheckpointError(unwritable(cache, error)) from error
    return Copy(pointer, commit, etag)


def remove(path: Path) -> None:
    """Takes a file out of the cache: the link, and what it points to in the cache's own store of contents. Raises
    CheckpointError where that is not allowed."""
    # only a content of the cache's own goes with its link: a user's link may lead anywhere
    try:
        target = path.resolve() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if (
            target is not None
            and target.parent.name == "blobs"
            and target.parent.parent in path.parents
        ):
            target.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} is damaged and cannot be deleted ({error.strerror}): delete it, or use another cache (HF_HOME, "
            f"FMJAX_CACHE)"
        ) from error


def _facts(source: Source, revision: str | None, *, name: str) -> tuple[str, str, int | None]:
    """The commit, the ETag and the size of a file, asked for once. Raises CheckpointError for those that are none."""
    from huggingface_hub import HfFileMetadata, get_hf_file_metadata, hf_hub_url

    address = hf_hub_url(source.location, source.filename, revision=revision or "main")
    addresses.check(address, "HF_ENDPOINT")
    contact(address)

    def explain(error: Exception) -> CheckpointError:
        return _explained(error, source, revision, name=name)

    limit = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or timeout_s())

    def ask() -> HfFileMetadata:
        return within(answering_s(), lambda: get_hf_file_metadata(address, timeout=limit))

    facts = patiently(ask, explain)
    # both become names of files, so both must be what the hub makes them
    commit, etag = matched(COMMIT, facts.commit_hash), matched(ETAG, facts.etag)
    if commit is None:
        raise _distrusted(source, "commit", facts.commit_hash, revision or "40 hexadecimal digits")
    if etag is None:
        raise _distrusted(source, "ETag", facts.etag, revision or "40 or 64 hexadecimal digits")
    if revision and commit != revision:
        raise _distrusted(source, "commit", facts.commit_hash, revision)
    size = facts.size if facts.size and facts.size > 0 else None
    return commit, etag, size


def _distrusted(source: Source, kind: str, given: str | None, wanted: str) -> CheckpointError:
    """The error for a host that names a content as the hub never would."""
    from huggingface_hub import constants

    return CheckpointError(
        f"{addresses.place(constants.ENDPOINT)} answers for {source.location} with the {kind} "
        f"{str(given)[:80]!a}, not {wanted}: do not trust it, set HF_ENDPOINT to another mirror or to {HOME}"
    )


def _check(source: Source, revision: str | None) -> None:
    """Raises CheckpointError for a repository, file or commit whose name would lead out of the cache or the address."""
    # rows may come from anybody's file, and all three become parts of paths and of addresses
    if (
        not REPOSITORY.fullmatch(source.location)
        or ".." in source.location
        or "--" in source.location
    ):
        raise CheckpointError(
            f"{source.location[:80]!a} is no repository of the hub: it is OWNER/NAME"
        )
    if not is_inside(source.filename):
        raise CheckpointError(
            f"{source.filename[:80]!a} is no file of a repository: it is a path inside it"
        )
    if revision is not None and not COMMIT.fullmatch(revision):
        raise CheckpointError(
            f"{revision[:80]!a} is no commit of the hub: it has 40 hexadecimal digits"
        )


def is_inside(name: str) -> bool:
    """Whether a file's name is a plain path inside its repository, which nothing takes for more than that."""
    if not name.isprintable() or set(name) & set("\\:?#%"):
        return False
    return all(step not in ("", ".", "..") for step in name.split("/"))


def matched(pattern: re.Pattern[str], text: str | None) -> str | None:
    return text if text and pattern.fullmatch(text) else None


def _held(path: Path) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    return FileLock(path)


def _point(pointer: Path, blob: Path) -> None:
    """Puts a link to the content where the client looks for the file; the content itself where links are not made."""
    pointer.parent.mkdir(parents=True, exist_ok=True)
    pointer.unlink(missing_ok=True)
    # relative, as the client makes them: the cache may be moved as a whole
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        os.replace(blob, pointer)


def patiently(call: Callable[[], T], explain: Callable[[Exception], CheckpointError]) -> T:
    """What a call returns, tried again where that may help. The client raises what its own http library does."""
    failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            if not _passing(error):
                raise explain(error) from error
            # the server's own wait, where it names one, goes before ours
            failures += 1
            response = getattr(error, "response", None)
            wait_s = None if response is None else retry_after(response.headers)
            rest(failures, str(explain(error)), wait_s)


def _passing(error: Exception) -> bool:
    """Whether another try may help: a full queue, a server's own trouble, a broken connection."""
    status = status_of(error)
    if status is not None:
        return status in AGAIN
    # a host that is silent would be silent again, and a certificate does not change
    if type(error).__name__ in SILENT or "CERTIFICATE" in str(error):
        return False
    return type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")


def status_of(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _refused(host: str, repo: str, status: int) -> CheckpointError:
    fix = "run the same command again later"
    if status in (401, 403, 429):
        fix = "run `hf auth login` or set HF_TOKEN"
    return CheckpointError(
        f"{host} answered {status} ({MEANINGS.get(status, 'error')}) for {repo}: {fix}"
    )


def _explained(
    error: Exception, source: Source, revision: str | None, *, name: str
) -> CheckpointError:
    """The reason in one sentence, and its fix."""
    from huggingface_hub import constants, errors

    # the client's own kinds from the narrowest on (a gated repository is one that is not found), then any status
    repo, file, host = source.location, source.filename, addresses.place(constants.ENDPOINT)
    status = status_of(error) or status_of(error.__cause__)
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{repo} is gated: accept its licence at {HOME}/{repo}, then run `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        fix = f", which the first use recorded: take the present one with {ACCEPT % name}"
        if source.revision:  # the row's own, which is not taken back
            fix = ""
        return CheckpointError(f"{repo} has no revision {revision or 'main'} any more{fix}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{host} has no repository {repo} for you: check HF_ENDPOINT, or run `hf auth login` if it is private"
        )
    # LocalEntryNotFoundError is one too, though all it says is that the host could not be asked
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(
        error, errors.LocalEntryNotFoundError
    ):
        return CheckpointError(f"{repo} has no file {file} at revision {revision or 'main'}")
    if status is not None:
        return _refused(host, repo, status)
    if type(error).__name__ in SILENT:
        return UnreachableError(
            f"{host} did not answer ({type(error).__name__}): check the network and HTTPS_PROXY, or set "
            f"FMJAX_TIMEOUT_S to wait longer"
        )
    return CheckpointError(
        f"{file} of {repo} could not be fetched ({type(error).__name__}: {first_line(error)})"
    )
