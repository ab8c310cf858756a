"""Installing into what Colab ships changes none of it, and the first notebook runs there: `python -m
tests.support.colab` does both in an environment of its own, on Python 3.12 where there is one."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "colab" / "constraints.txt"
NOTEBOOK = ROOT / "colab" / "embed_and_search.py"
ENOUGH = 0.75  # of the neighbours that the notebook finds show the same digit; 82 % do
# its cells, and what the last one shows
RUN = "import runpy, sys; print(runpy.run_path(sys.argv[1])['same'].mean())"


def shipped() -> dict[str, str]:
    """Name -> the version that Colab has."""
    rows = SHIPPED.read_text().splitlines()
    return dict(row.split("==") for row in rows if row and not row.startswith("#"))


def interpreter() -> str:
    """Colab's Python where this machine has it; else this one."""
    for python in _candidates():
        # a name may be there, and stand for a Python that is not
        if subprocess.run([python, "--version"], capture_output=True).returncode == 0:
            return python
    return sys.executable


def _candidates() -> Iterator[str]:
    if python := shutil.which("python3.12"):
        yield python
    # pyenv has those, too, that it puts on no path
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    yield from map(str, sorted(pyenv.glob("versions/3.12*/bin/python3.12")))


def installation() -> list[str]:
    """pip's arguments of the notebook's first cell, with this checkout in the place of what is published."""
    found = re.search(r'"pip", "(install .*)"', NOTEBOOK.read_text())
    if found is None:
        raise ValueError(f"{NOTEBOOK} installs nothing")
    words = found[1].split()
    return [str(ROOT) if word.startswith("git+") else word for word in words]


def changed(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Name -> its version after an installation, of all that are another than before; "" where it is gone."""
    return {name: after.get(name, "") for name in before if after.get(name) != before[name]}


def versions(pip: list[str]) -> dict[str, str]:
    """Name -> version of all that an environment has."""
    listed = subprocess.run([*pip, "list", "--format", "json"], stdout=subprocess.PIPE, check=True)
    return {row["name"]: row["version"] for row in json.loads(listed.stdout)}


def tried(folder: Path) -> tuple[dict[str, str], dict[str, str], float]:
    """The versions before and after an installation in a new environment, and the share of neighbours that the
    notebook finds right there.

    Raises CalledProcessError, pip or the notebook having said why.
    """
    subprocess.run([interpreter(), "-m", "venv", folder / "venv"], check=True)
    python = str(folder / "venv" / "bin" / "python")
    # -I: of this process's own modules none is there
    pip = [python, "-I", "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "-q", "-r", str(SHIPPED)], check=True)
    before = versions(pip)
    subprocess.run([*pip, *installation()], check=True)
    after = versions(pip)

    # no display
    environment = {**os.environ, "MPLBACKEND": "agg"}
    run = [python, "-I", "-c", RUN, str(NOTEBOOK)]
    shown = subprocess.run(
        run, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    return before, after, float(shown.stdout.split()[-1])


def main() -> int:
    """Prints what changed and what the notebook found, and returns whether anything is wrong."""
    with tempfile.TemporaryDirectory() as folder:
        before, after, share = tried(Path(folder))
    found = changed(before, after)
    for name, new in found.items():
        print(f"{name}: Colab has {before[name]}, an installation leaves {new or 'none'}")  # noqa: T201
    if not found:
        ours = ", ".join(f"{name} {version}" for name, version in shipped().items())
        brought = len(after) - len(before)
        print(f"{len(before)} packages stay as they are ({ours}), {brought} come")  # noqa: T201
    print(f"{NOTEBOOK.name}: {share:.0%} of the neighbours are the same digit")  # noqa: T201
    return int(bool(found) or share < ENOUGH)


if __name__ == "__main__":
    sys.exit(main())
