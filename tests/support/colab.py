"""Installing into what Colab ships changes none of it: `python -m tests.support.colab` asks pip's resolver, on Python
3.12 where there is one, and installs nothing."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.version import Version

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "colab" / "constraints.txt"


def shipped() -> dict[str, str]:
    """Name -> the version that Colab has."""
    rows = SHIPPED.read_text().splitlines()
    return dict(row.split("==") for row in rows if row and not row.startswith("#"))


def interpreter() -> str:
    """Colab's Python where this machine has it, which is all of it that pip needs; else this one."""
    python = shutil.which("python3.12")
    # a name may be there, and stand for a Python that is not
    runs = python and subprocess.run([python, "--version"], capture_output=True).returncode == 0
    return python if python and runs else sys.executable


def resolved() -> dict[str, Any]:
    """pip's report on what an installation would bring, with Colab's versions as the only ones of their packages.

    Raises CalledProcessError, pip having said which requirement is against them.
    """
    pip = [sys.executable, "-m", "pip", "--python", interpreter(), "install", "--quiet"]
    asked = ["--dry-run", "--ignore-installed", "--report", "-", "--constraint", str(SHIPPED), "."]
    found = subprocess.run([*pip, *asked], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(found.stdout)


def changed(report: Mapping[str, Any], versions: Mapping[str, str]) -> dict[str, str]:
    """Name -> the version that would be there, of all that would change; "" where nothing needs the package, so that
    its version was not asked about."""
    brought = {_plain(each["metadata"]["name"]): each["metadata"] for each in report["install"]}
    found = {name: brought.get(_plain(name), {}).get("version", "") for name in versions}
    return {name: new for name, new in found.items() if not _same(new, versions[name])}


def _same(new: str, old: str) -> bool:
    # 1.27 is 1.27.0
    return bool(new) and Version(new) == Version(old)


def _plain(name: str) -> str:
    # as packages are looked up: huggingface_hub is huggingface-hub
    return re.sub(r"[-_.]+", "-", name).lower()


def main() -> int:
    """Prints what would change and returns whether anything does."""
    report = resolved()
    found = changed(report, shipped())
    for name, new in found.items():
        print(f"{name}: Colab has {shipped()[name]}, an installation would have {new or 'none'}")  # noqa: T201
    if not found:
        python = report["environment"]["python_version"]
        count = len(shipped())
        print(f"Python {python}: the {count} packages of colab/constraints.txt stay as they are")  # noqa: T201
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
