"""Published weights -> a local file."""

from __future__ import annotations

import hashlib
from pathlib import Path

from fmjax.errors import CheckpointError
from fmjax.specs import Source, Weights


def locate(weights: Weights, *, offline: bool = False) -> tuple[Path, Source]:
    """The file of some published weights and the source it came from: out of this package, the hub's cache or the hub.

    Raises CheckpointError, with the way to pass a file, where none of the sources can be read here.
    """
    readable = [
        s for s in weights.sources if s.kind == "package" or (s.kind == "hf" and s.filename.endswith(".safetensors"))
    ]
    if not readable:
        published = "; ".join(f"{s.kind} {s.location} {s.filename}" for s in weights.sources)
        raise CheckpointError(
            f"{weights.name} is not published as safetensors ({published}); convert its file and pass it as checkpoint"
        )
    failures = []
    for source in readable:
        try:
            path = package_file(source.location) if source.kind == "package" else _from_hub(source, offline)
        except CheckpointError as error:
            failures.append(str(error))
            continue
        _check(path, source)
        return path, source
    raise CheckpointError(
        f"{'; '.join(failures)}; fetch one where the hub can be reached and pass the file: "
        f'fmjax.load("{weights.name}", checkpoint="/path/to/{readable[0].filename}"), or --checkpoint'
    )


def package_file(name: str) -> Path:
    """A file that ships inside this package."""
    return Path(__file__).parent / name


def _from_hub(source: Source, offline: bool) -> Path:
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(source.location, source.filename, local_files_only=offline))
    except Exception as error:  # the client passes on what its own http library raises
        reason = "is not in the local cache" if offline else f"could not be fetched ({type(error).__name__})"
        raise CheckpointError(f"{source.filename} of {source.location} {reason}") from error


def _check(path: Path, source: Source) -> None:
    if source.sha256 is None:
        return
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise CheckpointError(
            f"{path}: sha256 {found} is not the published {source.sha256}; delete the file and fetch it again"
        )
