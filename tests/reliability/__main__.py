"""What docs/reliability.md says: python -m tests.reliability [--kills 50] [--flips 200] [--only ROW ...] FOLDER

Runs every trial, prints the table, and writes it into the page and the raw verdicts beside the other results. The
whole takes about an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import jax

from fmjax.engine import steps
from tests.reliability import trials
from tests.reliability.trials import Layout, Verdict

ROOT = Path(__file__).parents[2]
PAGE, RAW = ROOT / "docs" / "reliability.md", ROOT / "benchmarks" / "results" / "reliability.json"
START, END = "<!-- table: python -m tests.reliability -->", "<!-- end of the table -->"
RERUNS = 10  # flips after which two processes go on, beside those that are only looked for
CHAIN = 10  # kills of one run before it may end
# the network of the trials has three heads
MESHES = (
    (Layout(1), Layout(2)),
    (Layout(2), Layout(4, data=2, fsdp=2)),
    (Layout(4, data=1, fsdp=4), Layout(6, data=1, fsdp=2, tensor=3)),
    (Layout(8, data=8), Layout(1)),
    (Layout(8, data=1, fsdp=8), Layout(3, data=1, tensor=3)),
    (Layout(6, data=2, tensor=3), Layout(4, data=1, fsdp=4)),
    (Layout(4), Layout(2, count=2)),
    (Layout(2, count=2), Layout(1)),
    (Layout(2, count=2, data=1, fsdp=4), Layout(4, data=2, fsdp=2)),
)


class Whole:
    """All trials, in one folder. Reference runs are made once."""

    def __init__(self, folder: Path, *, kills: int, flips: int) -> None:
        self.folder, self.kills, self.flips = folder, kills, flips

    def reference(self, count: int = 1) -> Path:
        """An uninterrupted run of some processes."""
        out = self.folder / f"reference-{count}"
        if max(steps.committed(out), default=0) < trials.LAST:
            trials.whole(out, count=count)
        return out

    def killed(self, count: int = 1) -> list[Verdict]:
        found = []
        for chain in range(-(-self.kills // CHAIN)):
            moments = [trials.MOMENTS[(chain + n) % len(trials.MOMENTS)] for n in range(CHAIN)]
            out = self.folder / f"killed-{count}-{chain}"
            found += trials.kill_often(self.reference(count), out, moments, chain, count=count)
            said(found[-1])
        return found

    def killed_in_two(self) -> list[Verdict]:
        return self.killed(2)

    def stopped(self) -> list[Verdict]:
        found = []
        for number in (signal.SIGTERM, signal.SIGINT):
            for count in (1, 2):
                for seed in range(3):
                    out = self.folder / f"stopped-{number.name}-{count}-{seed}"
                    reference = self.reference(count)
                    found.append(trials.stop(reference, out, number, seed, count=count))
                    said(found[-1])
        return found

    def flipped(self) -> list[Verdict]:
        reference, out = self.reference(), self.folder / "flipped"
        return [trials.flip(reference, out, seed) for seed in range(self.flips)]

    def flipped_in_two(self) -> list[Verdict]:
        """Of a step that two processes have written, half of each array by each."""
        reference, out = self.folder / "reference-halves", self.folder / "flipped-halves"
        mesh = Layout(1, count=2, data=1, fsdp=2).flags
        if max(steps.committed(reference), default=0) < trials.LAST:
            trials.whole(reference, *mesh, count=2)
        found = [trials.flip(reference, out, seed) for seed in range(self.flips)]
        said(found[-1])
        for seed in range(self.flips, self.flips + RERUNS):
            found.append(trials.flip_and_go_on(reference, out, seed, *mesh, count=2))
            said(found[-1])
        return found

    def damaged(self) -> list[Verdict]:
        reference, out = self.reference(), self.folder / "damaged"
        step = steps.folder(reference, trials.LAST)
        files = sorted(path for path in step.rglob("*") if path.is_file() and path.stat().st_size)
        names = [path.relative_to(step).as_posix() for path in files]
        return [
            trials.damage(reference, out, name, cut=cut) for name in names for cut in (True, False)
        ]

    def full(self) -> list[Verdict]:
        """Disks of several sizes, so that the save breaks at several places."""
        found = []
        for megabytes in (18, 20, 24, 28):
            place = self.folder / f"small-{megabytes}"
            if not trials.mounted(place, megabytes):
                return [Verdict("full", "no file system of its own could be made here")]
            found.append(trials.disk_full(place / "run"))
            said(found[-1])
            subprocess.run(["umount", str(place)], check=False)
        return found

    def moved(self) -> list[Verdict]:
        found = []
        for number, (before, after) in enumerate(MESHES):
            out = self.folder / f"moved-{number}"
            found.append(trials.move(self.reference(), out, before, after))
            said(found[-1])
        return found

    def soaked(self) -> list[Verdict]:
        return [trials.soak(self.folder / "soak", 2_000)[0]]


def tested(*paths: str) -> Callable[[Whole], list[Verdict]]:
    """The tests of some files, as CI runs them."""
    return lambda whole: trials.tests(*paths)


ROWS: dict[str, tuple[str, Callable[[Whole], list[Verdict]]]] = {
    "R1": ("killed at a random moment, one process", Whole.killed),
    "R1-2": ("killed at a random moment, one or both of two processes", Whole.killed_in_two),
    "R2": ("SIGTERM and SIGINT, one and two processes", Whole.stopped),
    "R3-flips": ("one bit flipped in a file of a checkpoint", Whole.flipped),
    "R3-2": (
        "one bit flipped in a file of a checkpoint of two processes",
        Whole.flipped_in_two,
    ),
    "R3-files": ("each file of a checkpoint cut to half, or deleted", Whole.damaged),
    "R4": ("a disk that is full in the middle of a save", Whole.full),
    "R5": ("saved on one mesh, gone on on another", Whole.moved),
    "R6": (
        "gradients and losses that are no numbers, and leaps",
        tested("tests/unit/test_guard.py", "tests/unit/test_alarms.py", "tests/e2e/test_guards.py"),
    ),
    "R12": (
        "a process that dies, fails, comes late or was told otherwise",
        tested("tests/distributed"),
    ),
    "R13": (
        "the same seed, other threads, intervals and caches",
        tested("tests/e2e/test_same_bits.py"),
    ),
    "R15": ("stored runs of every format", tested("tests/reliability/test_stored_runs.py")),
    "R16": ("2,000 steps with 40 scores and 40 saves", Whole.soaked),
}


def said(verdict: Verdict) -> None:
    print(f"{'ok  ' if verdict.passed else 'FAIL'} {verdict.name} {verdict.wrong}", flush=True)  # noqa: T201


def figures(found: list[Verdict]) -> str:
    """What there is to say beside how many passed."""
    words = []
    kills = sum(one.name.startswith("kill") for one in found)
    if kills:
        words.append(f"{kills} kills")
    effect = [one for one in found if "found: " in one.name]
    if effect:
        words.append(
            f"{len(effect)} found, {len(found) - len(effect)} without effect on any number"
        )
    lost = [one.lost_steps for one in found if one.name.startswith("kill")]
    if lost:
        words.append(
            f"steps done again: {sum(lost) / len(lost):.1f} on average, {max(lost)} at most, of 4 between saves"
        )
    words += [one.name.partition(": ")[2] for one in found if one.name.startswith("soak")]
    stops = [one.seconds for one in found if one.name.startswith("SIG")]
    if stops:
        words.append(f"ended {max(stops):.1f} s after the signal at most")
    return "; ".join(words)


def table(results: dict[str, list[Verdict]], seconds: dict[str, float]) -> str:
    lines = ["| | trial | passed | figures | minutes |", "|---|---|---|---|---|"]
    for row, found in results.items():
        passed = f"{sum(one.passed for one in found)} of {len(found)}"
        lines.append(
            f"| {row} | {ROWS[row][0]} | {passed} | {figures(found)} | {seconds[row] / 60:.1f} |"
        )
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--flips", type=int, default=200)
    parser.add_argument("--only", nargs="*", default=list(ROWS), choices=list(ROWS))
    args = parser.parse_args()
    whole = Whole(args.folder, kills=args.kills, flips=args.flips)

    stored = json.loads(RAW.read_text()) if RAW.exists() else {"rows": {}}
    for row in args.only:
        start = time.monotonic()
        found = ROWS[row][1](whole)
        stored["rows"][row] = {
            "seconds": round(time.monotonic() - start, 1),
            "jax": jax.__version__,
            "verdicts": [asdict(one) for one in found],
        }
        # after each row: what was measured stays, whatever becomes of the next
        RAW.write_text(json.dumps(stored, indent=1) + "\n")
    results = {
        row: [Verdict(**one) for one in stored["rows"][row]["verdicts"]]
        for row in ROWS
        if row in stored["rows"]
    }
    shown = table(results, {row: stored["rows"][row]["seconds"] for row in results})
    print(shown)  # noqa: T201
    text = PAGE.read_text()
    head, tail = text.partition(START)[0], text.partition(END)[2]
    PAGE.write_text(f"{head}{START}\n{shown}\n{END}{tail}")
    return int(any(not one.passed for found in results.values() for one in found))


if __name__ == "__main__":
    sys.exit(main())
