"""What is known of fetched files: fmjax's cache folder and the record in it, a JSON file that people can read."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from fmjax.errors import CheckpointError
from fmjax.serial import write_atomically

Section = Literal["files", "licences_shown"]
NAME = "weights.lock.json"
SEEN = "seen.json"  # path -> (the digest of a file, what its inode said then): of this machine only
LARGEST = 16 << 20  # bytes of a record; a row takes 300
SHA256, COMMIT, DATE = (
    re.compile(r"[0-9a-f]{64}"),
    re.compile(r"[0-9a-f]{40}"),
    re.compile(r"[0-9-]{10}"),
)


def cache_folder() -> Path:
    """FMJAX_CACHE, else fmjax's folder in XDG_CACHE_HOME, else ~/.cache/fmjax."""
    own = os.environ.get("FMJAX_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmjax"


def cache_place(kind: str, key: str, suffix: str) -> Path:
    """Where the cache folder has what depends on a key, whatever that holds: a file of its digest."""
    return cache_folder() / kind / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"


def held(name: str) -> FileLock:
    """A lock of that name between the processes of this machine, to be used in a `with`. Raises OSError where the cache
    folder cannot be written."""
    folder = cache_folder() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.lock")


def get(section: Section, key: str) -> Any:
    """What is recorded under a key, or None. Raises CheckpointError where the record cannot be read."""
    return _read(cache_folder() / NAME).get(section, {}).get(key)


def put(section: Section, key: str, value: Any) -> bool:
    """Records a value and returns whether it is new. Raises OSError where the cache folder cannot be written."""
    path = cache_folder() / NAME
    if get(section, key) == value:
        return False
    # asked first without the lock, which a record on a disk that is only read could not have
    with held(NAME):
        content = _read(path)
        entries = content.setdefault(section, {})
        if entries.get(key) == value:
            return False
        entries[key] = value
        write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return True


def seen(path: Path) -> Any:
    """What was remembered of a file, or None."""
    return _remembered().get(str(path))


def remember(path: Path, value: Any) -> None:
    """Remembers a value of a file, None to forget it, and forgets files that are gone. Where that cannot be written,
    nothing is remembered: it only saves time."""
    try:
        # read again under the lock: another process may have noted its files since
        with held(SEEN):
            there = {key: kept for key, kept in _remembered().items() if os.path.exists(key)}
            content = {key: kept for key, kept in there.items() if key != str(path)}
            if value is not None:
                content[str(path)] = value
            write_atomically(cache_folder() / SEEN, json.dumps(content, indent=2) + "\n")
    except OSError:
        return


def _remembered() -> dict[str, Any]:
    try:
        content = _loaded(cache_folder() / SEEN)
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _read(path: Path) -> dict[str, Any]:
    """The record, every entry of which is what fmjax writes: it may have been copied from elsewhere, and its
    revisions become parts of addresses."""
    try:
        content = _loaded(path)
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, RecursionError):
        content = None
    # None for what could not be parsed, which is wrong too: it may hold what a person typed, and is not replaced
    wrong = _first_wrong(content)
    if wrong:
        raise CheckpointError(
            f"{path} is not a record that fmjax wrote ({wrong}): correct it, or delete it to record files anew"
        )
    return content or {}


def _loaded(path: Path) -> Any:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"more than {LARGEST:,} bytes")
    return json.loads(path.read_text(encoding="utf-8"))


def _first_wrong(content: Any) -> str:
    """What is wrong with a record, "" where nothing is."""
    if not isinstance(content, dict) or not all(
        isinstance(section, dict) for section in content.values()
    ):
        return "not JSON of sections"
    checks = {"files": _is_file, "licences_shown": lambda licence: isinstance(licence, str)}
    for section, is_right in checks.items():
        for key, entry in content.get(section, {}).items():
            if not is_right(entry):
                return f"the entry {key[:80]!a} of {section!r}"
    return ""


def _is_file(entry: Any) -> bool:
    if not isinstance(entry, dict) or type(entry.get("size")) is not int:
        return False
    # a revision becomes part of an address and a digest decides on a deletion: both by their exact form
    texts = {"sha256": SHA256, "revision": COMMIT, "first_used": DATE}
    given = {key: entry.get(key) for key in texts}
    if given["sha256"] is None:
        return False
    return all(text is None or _fits(texts[key], text) for key, text in given.items())


def _fits(pattern: re.Pattern[str], text: Any) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None
