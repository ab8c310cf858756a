"""`python -m weights_conversion convert | export | verify | parity`: the first three are programs of `fmjax`; parity
compares every backbone with its reference, and runs from a checkout."""

import importlib
import sys
from pathlib import Path

from fmjax.cli import main
from fmjax.errors import nearest

VERBS = ("convert", "export", "verify", "parity")
NEEDS = "parity needs a checkout and its test packages: pip install -e '.[test]', then run it from there"


def parity(arguments: list[str]) -> int:
    """The comparison with the reference packages, which live with the tests."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    try:
        importlib.import_module("tests.support.torch_reference")
        report = importlib.import_module("tests.parity.report")
    except ModuleNotFoundError as error:
        sys.stderr.write(f"{NEEDS} ({error})\n")
        return 2
    return report.main(arguments)


if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] == "parity":
        sys.exit(parity(sys.argv[2:]))
    if len(sys.argv) > 1 and sys.argv[1] in VERBS:
        sys.exit(main(sys.argv[1:]))
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.stderr.write(
        f"usage: python -m weights_conversion {' | '.join(VERBS)} ...{nearest(asked, VERBS)}\n"
    )
    sys.exit(2)
