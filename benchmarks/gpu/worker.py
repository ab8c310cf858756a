"""Rows of one library, in a process of its own: neither library's memory stands beside the other's.

python -m benchmarks.gpu.worker SIDE RECORD FOLDER UNTIL TINY ROW ...
"""

from __future__ import annotations

import faulthandler
import gc
import importlib
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from benchmarks.gpu import record
from benchmarks.gpu.cases import NAMED, Case

PATIENCE_S = 60.0  # with a row that should take less


def main(side: str, path: str, folder: str, until: str, tiny: str, *names: str) -> None:
    for name in names:
        case = NAMED[name]
        found = done(side, case, Path(path), Path(folder), float(until), tiny == "1")
        record.add(Path(path), case.told | found)
        gc.collect()


def done(
    side: str, case: Case, path: Path, folder: Path, until: float, tiny: bool
) -> dict[str, Any]:
    """A row's figures, or why there are none."""
    start = time.time()
    left = until - start
    if left < case.needs_s:
        return {"left_out": f"{left:.0f} s are left, and it may take {case.needs_s:.0f}"}
    # a row that is stuck ends the process, and not the call
    if not tiny:
        faulthandler.dump_traceback_later(max(PATIENCE_S, 2.5 * case.needs_s), exit=True)
    try:
        # a library that is not here costs its rows, and no others
        library = importlib.import_module(f"benchmarks.gpu.{side}")
        found = library.ROWS[case.kind](case, path, folder, tiny)
    except Exception as error:
        traceback.print_exc()
        words = " ".join(f"{type(error).__name__}: {error}".split())
        found = {"failed": words[:400]}
    finally:
        faulthandler.cancel_dump_traceback_later()
    return {**found, "took_s": round(time.time() - start, 1)}


if __name__ == "__main__":
    main(*sys.argv[1:])
