"""`python -m tests.parity.training`: trains every case beside timm, and writes the section of docs/parity.md."""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from tests.parity import report
from tests.parity.authors.run import tell
from tests.parity.training import page
from tests.parity.training.compare import Result, compare
from tests.parity.training.settings import CASES

PACKAGES = ("torch", "timm", "jax", "flax", "optax")


def main(argv: Sequence[str] | None = None) -> int:
    """Measures all cases, stores them and writes the page; returns 1 if a number is beyond its bound."""
    options = _parser().parse_args(argv)
    if not options.page:
        results = [_told(compare(*case)) for case in CASES]
        page.store(options.json, results, _made())
    options.out.write_text(
        report.page(report.RESULTS / "parity.json", report.RESULTS / "authors.json", options.json)
    )
    found = page.load(options.json)
    return 1 if any(result.apart.over for result in found) else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.parity.training", description=__doc__)
    parser.add_argument(
        "--page", action="store_true", help="write the page of the stored results; train nothing"
    )
    parser.add_argument("--out", type=Path, default=report.ROOT / "docs" / "parity.md")
    parser.add_argument("--json", type=Path, default=page.RESULTS)
    return parser


def _told(result: Result) -> Result:
    over = ", ".join(result.apart.over)
    tell(f"{f'over ({over})' if over else 'ok':<5}{page.line(result)} {result.seconds:.0f} s")
    return result


def _made() -> dict[str, str]:
    return {
        "date": time.strftime("%Y-%m-%d"),
        "versions": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    sys.exit(main())
