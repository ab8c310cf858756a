"""The presets that ship with fmjax, and presets in files of one's own."""

from __future__ import annotations

import difflib
import importlib.resources
import importlib.util
import sys
from pathlib import Path

from fmjax.config.run import RunConfig
from fmjax.errors import UsageError, nearest

OWN = "fmjax_presets"  # before the names of presets in files


def presets() -> dict[str, Path]:
    """The presets that ship with fmjax, by name."""
    folder = Path(str(importlib.resources.files("fmjax.presets")))
    return {path.stem: path for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def load_preset(name: str) -> RunConfig:
    """The `config` of a preset: a path to a Python file, which is run, or the name of one that ships with fmjax.

    Raises UsageError for what is neither, with the nearest names.
    """
    # a path is a file of the user's own, and never taken for a preset of that name
    shipped, path = presets(), Path(name)
    if path.suffix == ".py":
        if not path.is_file():
            other = _near_file(path) or nearest(path.stem, shipped)
            if path.stem in shipped:
                other = f"; the preset that ships with fmjax is called {path.stem}"
            raise UsageError(f"no file {name!r}{other}")
        return _config_in(path)
    if name not in shipped:
        raise UsageError(
            f"no preset {name!r}{nearest(name, shipped)}; the presets are {', '.join(shipped)}, or pass a .py file, or "
            f"a model's name"
        )
    return _config_in(shipped[name])


def _near_file(path: Path) -> str:
    """The Python file in the folder whose name is closest, as the tail of an error message; "" where none is."""
    # without the suffix, which all of them share
    files = {file.stem.lower(): file for file in path.parent.glob("*.py")}
    close = difflib.get_close_matches(path.stem.lower(), files, n=1, cutoff=0.6)
    return f"; did you mean {files[close[0]]}?" if close else ""


def _config_in(path: Path) -> RunConfig:
    # a name of its own, so that a preset called as a library takes nobody's place
    spec = importlib.util.spec_from_file_location(f"{OWN}.{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = (
        module  # where Python looks for the source of the classes in it, as --help does
    )
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise UsageError(f"{path} is no Python: {error.msg} in line {error.lineno}") from error
    config = getattr(module, "config", None)
    if not isinstance(config, RunConfig):
        raise UsageError(f"{path} defines no `config = RunConfig(...)`")
    return config
