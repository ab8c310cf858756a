"""What is known of fetched files: fmjax's cache folder and the record in it, a JSON file that people can read."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock

from fmjax.errors import CheckpointError
from fmjax.progress import write_atomically

Section = Literal["files", "licences_shown"]
NAME = "weights.lock.json"


def cache_folder() -> Path:
    """FMJAX_CACHE, else fmjax's folder in XDG_CACHE_HOME, else ~/.cache/fmjax."""
    own = os.environ.get("FMJAX_CACHE")
    if own:
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fmjax"


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
    with held(NAME):
        content = _read(path)
        entries = content.setdefault(section, {})
        if entries.get(key) == value:
            return False
        entries[key] = value
        write_atomically(path, json.dumps(content, indent=2, sort_keys=True) + "\n")
    return True


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
        if isinstance(content, dict) and all(isinstance(section, dict) for section in content.values()):
            return content
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError:
        pass
    raise CheckpointError(f"{path} is not a record that fmjax wrote: correct it, or delete it to record files anew")
