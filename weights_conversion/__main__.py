"""`python -m weights_conversion convert | export | verify`: the same programs as `fmjax convert` and its siblings."""

import sys

from fmjax.cli import main
from fmjax.errors import nearest

VERBS = ("convert", "export", "verify")

if __name__ == "__main__":
    if len(sys.argv) > 1 and sys.argv[1] in VERBS:
        sys.exit(main(sys.argv[1:]))
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.stderr.write(f"usage: python -m weights_conversion {' | '.join(VERBS)} ...{nearest(asked, VERBS)}\n")
    sys.exit(2)
