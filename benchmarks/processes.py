"""One, two and four processes on the same cores: python benchmarks/processes.py OUT (from a checkout)

The demo network on digits, 64 images a step, on four CPU devices in all, which one process has, or two, or four. It
prints the images/s of each, the median of what the run has logged, and their ratio to that of one process.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from tests.support.processes import Processes
from tests.support.runs import rows

DEVICES = 4
STEPS, WARM = 240, 60  # in all, and before what is counted
RUN = ("finetune", "demo_vit_ti4.fashion_mnist", "--batch-size", "64", "--steps", str(STEPS))
QUIET = ("--eval-every", str(STEPS), "--save-every", str(STEPS), "--export", "none")


def main(out: Path) -> None:
    alone = None
    for count in (1, 2, 4):
        run = out / f"{count}"
        args = [*RUN, *QUIET, "--log-every", "20", "--fresh", "--out", str(run)]
        ended = Processes(out / f"log{count}", args, count=count, devices=DEVICES // count).ended(
            timeout_s=900
        )
        assert not any(process.code for process in ended), ended[0].err
        # the first rows are those of caches that fill
        speeds = [row["images_per_s"] for row in rows(run) if "images_per_s" in row]
        speed = statistics.median(speeds[WARM // 20 :])
        alone = alone or speed
        print(
            f"{count} processes x {DEVICES // count} devices: {speed:.0f} images/s, {speed / alone:.2f}"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
