"""Files of Hugging Face repositories, through huggingface_hub: its cache, mirrors (HF_ENDPOINT), tokens and proxies."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from fmjax.errors import CheckpointError
from fmjax.fetch import (
    AGAIN,
    MEANINGS,
    Copy,
    UnreachableError,
    contact,
    first_line,
    need_space,
    rest,
    retry_after,
    timeout_s,
    unwritable,
)
from fmjax.specs import Source

HOME = "https://huggingface.co"
SHA256 = re.compile(r"[0-9a-f]{64}")
ACCEPT = "`fmjax download %s --accept-new`"
UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS)
SILENT = ("ConnectError", "ConnectTimeout", "ReadTimeout", "PoolTimeout", "ProxyError")  # of httpx, httpx2, requests
T = TypeVar("T")


def cached(source: Source, revision: str | None) -> Copy | None:
    """The copy in huggingface_hub's cache, of a commit or of the last known main; None where it has none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(hf_hub_download(source.location, source.filename, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    folder = path.parents[source.filename.count("/")]
    # the cache names its blobs by the hub's ETag, which is the sha256 of a large file
    blob = Path(os.readlink(path)).name if path.is_symlink() else ""
    return Copy(path, folder.name if folder.parent.name == "snapshots" else None, _sha256(blob))


def fetch(source: Source, revision: str | None, *, name: str) -> Copy:
    """The copy of a commit (None: of what main is now), fetched unless it is cached.

    Raises CheckpointError with the reason and its fix; UnreachableError, within ten seconds, where the hub gives no
    answer.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url

    address = hf_hub_url(source.location, source.filename, revision=revision or "main")
    contact(address)

    def explain(error: Exception) -> CheckpointError:
        return _explained(error, source, revision, name=name)

    limit = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or timeout_s())
    facts = _patiently(lambda: get_hf_file_metadata(address, timeout=limit), explain)
    here = cached(source, facts.commit_hash)
    if here is None:
        need_space(Path(constants.HF_HUB_CACHE), facts.size or 0)
        _patiently(lambda: hf_hub_download(source.location, source.filename, revision=facts.commit_hash), explain)
        here = cached(source, facts.commit_hash)
    if here is None:
        raise CheckpointError(
            f"{source.filename} of {source.location} was fetched and is not in {constants.HF_HUB_CACHE}"
        )
    return Copy(here.path, facts.commit_hash, _sha256(facts.etag or ""))


def remove(path: Path) -> None:
    """Takes a file out of the cache: the link, and what it points to in the cache's own store of contents. Raises
    CheckpointError where that is not allowed."""
    try:
        target = path.resolve() if path.is_symlink() else None
        path.unlink(missing_ok=True)
        if target is not None and target.parent.name == "blobs" and target.parent.parent in path.parents:
            target.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{path} is damaged and cannot be deleted ({error.strerror}): delete it, or use another cache (HF_HOME, "
            f"FMJAX_CACHE)"
        ) from error


def _sha256(text: str) -> str | None:
    return text if SHA256.fullmatch(text) else None


def _patiently(call: Callable[[], T], explain: Callable[[Exception], CheckpointError]) -> T:
    """What a call returns, tried again where that may help. The client raises what its own http library does."""
    failures = 0
    while True:
        try:
            return call()
        except Exception as error:
            if not _passing(error):
                raise explain(error) from error
            failures += 1
            response = getattr(error, "response", None)
            rest(failures, str(explain(error)), retry_after(response.headers) if response is not None else None)


def _passing(error: Exception) -> bool:
    """Whether another try may help: a full queue, a server's own trouble, a broken connection."""
    status = _status(error)
    if status is not None:
        return status in AGAIN
    if type(error).__name__ in SILENT or "CERTIFICATE" in str(error):
        return False
    transport = type(error).__module__.split(".")[0] in ("httpx", "httpx2", "requests")
    return transport or (type(error) is OSError and error.errno not in UNWRITABLE)


def _status(error: BaseException | None) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _explained(error: Exception, source: Source, revision: str | None, *, name: str) -> CheckpointError:
    """The reason in one sentence, and its fix."""
    from huggingface_hub import constants, errors

    repo, file, host = source.location, source.filename, constants.ENDPOINT.removeprefix("https://")
    status = _status(error) or _status(error.__cause__)
    if isinstance(error, errors.GatedRepoError):
        return CheckpointError(
            f"{repo} is gated: accept its licence at {HOME}/{repo}, then run `hf auth login` or set HF_TOKEN"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        fix = "" if source.revision else f", which the first use recorded: take the present one with {ACCEPT % name}"
        return CheckpointError(f"{repo} has no revision {revision or 'main'} any more{fix}")
    if isinstance(error, errors.RepositoryNotFoundError):
        return CheckpointError(
            f"{host} has no repository {repo} for you: check HF_ENDPOINT, or run `hf auth login` if it is private"
        )
    if isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError):
        return CheckpointError(f"{repo} has no file {file} at revision {revision or 'main'}")
    if status is not None:
        fix = "run `hf auth login` or set HF_TOKEN" if status in (401, 403, 429) else "run the same command again later"
        return CheckpointError(f"{host} answered {status} ({MEANINGS.get(status, 'error')}) for {repo}: {fix}")
    if type(error).__name__ in SILENT:
        return UnreachableError(
            f"{host} did not answer ({type(error).__name__}): check the network and HTTPS_PROXY, or set "
            f"FMJAX_TIMEOUT_S to wait longer"
        )
    if isinstance(error, OSError) and error.errno in UNWRITABLE:
        return CheckpointError(unwritable(Path(constants.HF_HUB_CACHE), error))
    return CheckpointError(f"{file} of {repo} could not be fetched ({type(error).__name__}: {first_line(error)})")
