"""The files that a command will write, looked at before its work starts: hours later is too late to refuse."""

from __future__ import annotations

import tempfile
from pathlib import Path

from fmjax.errors import FilesError, UsageError


def check_target(
    target: str | Path,
    suffix: str,
    *,
    flag: str,
    sources: tuple[str, ...] = (),
    force: bool = False,
) -> Path:
    """The path of a file that can be written there, made of nothing but what the user said.

    flag: how the command calls it. sources: files and folders that the command reads, which it never writes over.
    force: take the place of a file that is there. Raises UsageError for another suffix, a folder, a source or a file
    that is there; FilesError for a place that cannot be written.
    """
    # in this order: what the name itself says, then what is there, then whether it could be written
    path = Path(target).expanduser()
    if path.is_dir():
        raise UsageError(f"{flag} {str(target)!r} is a folder; name a file that ends in {suffix}")
    if path.suffix != suffix:
        raise UsageError(
            f"{flag} is {str(target)!r}; it must end in {suffix}, which is what is written"
        )
    for source in filter(None, sources):
        check_not_source(path, source, flag=flag)
    if path.exists() and not force:
        raise UsageError(
            f"{flag} {str(target)!r} exists; pass --force to replace it, or name another file"
        )
    check_writable(path.parent)
    return path


def check_writable(folder: Path) -> None:
    """Raises FilesError where no file could be made in a folder, which need not be there yet."""
    there = next(
        parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists()
    )
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:
        raise FilesError(
            f"{folder} cannot be written ({error.strerror}); name another place"
        ) from error


def check_not_source(path: Path, source: str | Path, *, flag: str) -> None:
    """Raises UsageError where a path is a source, or a file of a folder that is one, by whatever name."""
    source = Path(source).expanduser()
    if not path.exists() or not source.exists():
        return
    if path.samefile(source) or (source.is_dir() and path.resolve().parent.samefile(source)):
        raise UsageError(
            f"{flag} {str(path)!r} is read from, as {str(source)!r}; write to another file"
        )
