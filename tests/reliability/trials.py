"""Ways to harm a run, and what is compared afterwards. A run is a real process, or several, of `fmjax finetune`."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import jax
import numpy as np

from fmjax.engine import checkpoint, steps
from fmjax.engine.metrics import METRICS, rows_in
from fmjax.errors import CheckpointError
from fmjax.trees import flat
from tests.support.processes import Ended, Processes
from tests.support.runs import losses

# A run with all that has randomness or a place: drop path, augmentation, evaluation, saving, an average
ARGS = (
    *("finetune", "quickstart", "--no-compare-random", "--steps", "24", "--batch-size", "16"),
    *("--eval-every", "8", "--save-every", "4", "--log-every", "1", "--drop-path", "0.1"),
    *("--recipe.warmup-steps", "4", "--recipe.ema", "0.9"),
)
LAST = 24
ROOT = Path(__file__).parents[2]
TINY = Path(__file__).parent / "stored" / "tiny.py"  # the preset of a very small network
MOMENTS = ("any", "start", "saving", "committed", "scoring", "ending")


@dataclass(frozen=True)
class Verdict:
    """What came of one trial: "" where it passed, else what was wrong."""

    name: str
    wrong: str
    seconds: float = 0.0
    lost_steps: int = 0  # that had been done and were done again

    @property
    def passed(self) -> bool:
        return not self.wrong


def run(
    folder: Path, *more: str, count: int = 1, devices: int = 1, each: dict | None = None
) -> Processes:
    """Starts a run in a folder."""
    # a process whose peer is killed before they have met waits for it so long
    more = (*more, "--hosts.join-timeout-s", "20") if count > 1 else more
    return Processes(
        folder, (*ARGS, "--out", str(folder), *more), count=count, devices=devices, each=each
    )


def whole(folder: Path, *more: str, count: int = 1, devices: int = 1) -> list[Ended]:
    """A run to its end. Raises AssertionError where it does not come there."""
    ended = run(folder, *more, count=count, devices=devices).ended()
    assert [one.code for one in ended] == [0] * count, ended
    return ended


def final(folder: Path, step: int = LAST) -> dict[str, Any]:
    """Digests of all arrays of a step, and its place in the data, as the run itself recorded them."""
    record = steps.folder(folder, step) / "data" / "metadata"
    return json.loads(record.read_text())


def same_as(reference: Path, folder: Path) -> str:
    """What is not the same in two finished runs, bit by bit; "" where nothing is."""
    if losses(reference) != losses(folder):
        return "other losses"
    if final(reference) != final(folder):
        return "another state"
    files = [(path / "model.timm.safetensors").read_bytes() for path in (reference, folder)]
    return "" if files[0] == files[1] else "another export"


def kill_often(
    reference: Path, folder: Path, moments: list[str], seed: int, *, count: int = 1
) -> list[Verdict]:
    """Kills a run at some moments of its life, starts it again each time by the same command, and lets it end at last.

    Each time it must go on from the newest step that was committed when it was killed, and in the end it must have the
    bits of the reference. A run that ends before its moment comes is compared, too, and another one is begun.
    """
    rng, found, left = np.random.default_rng(seed), [], list(moments)
    expected = 0
    while left:
        start = time.monotonic()
        processes = run(folder, count=count)
        _wait_for(left[0], folder, processes, rng)
        done = max((row["step"] for row in rows_in(folder / METRICS)), default=0)
        both = count == 1 or rng.random() < 0.5
        victims = processes.all if both else [processes.all[rng.integers(count)]]
        # the moment may not come any more: then the run is let go to its end
        if processes.all[0].poll() is None:
            for process in victims:
                process.send_signal(signal.SIGKILL)
        ended = processes.ended()
        wrong = _went_on(ended[0].out, expected)
        seconds = time.monotonic() - start
        if all(one.code == 0 for one in ended):
            found.append(
                Verdict("an end before the kill", wrong or same_as(reference, folder), seconds)
            )
            shutil.rmtree(folder)
            expected = 0
            continue
        newest = max(steps.committed(folder), default=0)
        # one may have ended in the moment between: then all had been done
        if any(one.code == 0 for one in ended) and newest != LAST:
            wrong = wrong or "a process ended well while another was killed"
        found.append(Verdict(f"kill, {left.pop(0)}", wrong, seconds, max(done - newest, 0)))
        expected = newest
    [first, *_] = whole(folder, count=count)
    wrong = _went_on(first.out, expected) or same_as(reference, folder)
    rest = list((folder / steps.STEPS).glob("*tmp*"))
    return [
        *found,
        Verdict("the end after all kills", wrong or (f"left {rest[0].name}" if rest else "")),
    ]


def _went_on(said: str, expected: int) -> str:
    """What is wrong with where a run went on; a run that was killed before it said so has said nothing wrong."""
    told = [line for line in said.splitlines() if line.startswith("resumed from step ")]
    right = f"resumed from step {expected}"
    if (told and told[0] != right) or "damaged" in said:
        return f"{told[0] if told else said!r}, where step {expected} was the newest"
    return ""


def _wait_for(moment: str, folder: Path, processes: Processes, rng: np.random.Generator) -> None:
    """Returns at a moment of the run's life, or when it has ended."""
    known = set(steps.committed(folder))
    due: dict[str, Callable[[], bool]] = {
        "start": lambda: (folder / "config.json").exists(),
        "saving": lambda: bool(list((folder / steps.STEPS).glob("*.orbax-checkpoint-tmp*"))),
        "committed": lambda: bool(set(steps.committed(folder)) - known),
        "scoring": lambda: _is_scoring(folder),
        "ending": lambda: (folder / "curves.png").exists(),
        "any": lambda: (folder / METRICS).exists(),
    }
    while not due[moment]() and processes.all[0].poll() is None:
        time.sleep(0.002)
    # the moment itself, or a little later
    time.sleep(rng.random() * {"any": 4.0, "start": 2.0}.get(moment, 0.05))


def _is_scoring(folder: Path) -> bool:
    rows = rows_in(folder / METRICS)
    return bool(rows) and rows[-1]["step"] % 8 == 0 and "loss" in rows[-1]


def stop(
    reference: Path, folder: Path, number: signal.Signals, seed: int, *, count: int = 1
) -> Verdict:
    """Asks one process of a run to stop: all end with code 75 and a saved step, and the rerun has the same bits."""
    rng = np.random.default_rng(seed)
    processes = run(folder, count=count)
    _wait_for("any", folder, processes, rng)
    start = time.monotonic()
    processes.signal(int(rng.integers(count)), number)
    ended = processes.ended()
    seconds = time.monotonic() - start
    codes, wrong = {one.code for one in ended}, ""
    if codes == {75}:
        saved = max(steps.committed(folder), default=0)
        told = f"after step {saved}, which is saved"
        wrong = (
            ""
            if told in ended[0].err or not saved
            else f"it was not said that step {saved} is saved"
        )
    elif codes != {0}:
        wrong = f"exit codes {sorted(codes)}"
    whole(folder, count=count)
    return Verdict(f"{number.name}", wrong or same_as(reference, folder), seconds)


def flip(finished: Path, folder: Path, seed: int) -> Verdict:
    """Flips one bit of one file of the newest step. It must be found, or have no effect on any number."""
    name = _flipped(finished, folder, seed)
    return _found_or_harmless(finished, folder, max(steps.committed(finished)), name)


def flip_and_go_on(
    finished: Path, folder: Path, seed: int, *flags: str, count: int = 1, devices: int = 1
) -> Verdict:
    """The same, and the command is run again: it must say so and end with the bits of the run that was not harmed."""
    start = time.monotonic()
    name = _flipped(finished, folder, seed)
    said = whole(folder, *flags, count=count, devices=devices)[0].out
    found = "set aside" in said
    return Verdict(
        f"{name}: found: {found}" if found else f"{name}: no effect",
        same_as(finished, folder),
        time.monotonic() - start,
    )


def _flipped(finished: Path, folder: Path, seed: int) -> str:
    """Copies a run, flips one bit of one file of its newest step, and says of which."""
    rng = np.random.default_rng(seed)
    step = max(steps.committed(finished))
    files = sorted(path for path in steps.folder(finished, step).rglob("*") if path.is_file())
    files = [path for path in files if path.stat().st_size]
    # half of them evenly, half where the bytes are
    sizes = np.array([path.stat().st_size for path in files], float)
    weights = np.full(len(files), 1 / len(files)) if seed % 2 else sizes / sizes.sum()
    chosen = files[rng.choice(len(files), p=weights)]
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    path = folder / chosen.relative_to(finished)
    data = bytearray(path.read_bytes())
    place = int(rng.integers(len(data)))
    data[place] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return f"flip in {chosen.relative_to(finished)}"


def damage(finished: Path, folder: Path, name: str, *, cut: bool) -> Verdict:
    """Cuts a file of the newest step to half, or takes it away."""
    step = max(steps.committed(finished))
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished, folder)
    path = steps.folder(folder, step) / name
    data = path.read_bytes()
    path.unlink()
    if cut:
        path.write_bytes(data[: len(data) // 2])
    return _found_or_harmless(finished, folder, step, f"{'cut' if cut else 'deleted'} {name}")


def _found_or_harmless(finished: Path, folder: Path, step: int, name: str) -> Verdict:
    start = time.monotonic()
    like = _shapes(finished, step)
    try:
        params = checkpoint.restore_params(folder, step, like)
        reason = checkpoint.flaw(folder, step)
    except CheckpointError as error:
        found = error.reason if isinstance(error, checkpoint.Damaged) else error
        return Verdict(f"{name}: found: {found}", "", time.monotonic() - start)
    if reason:
        return Verdict(f"{name}: found: {reason}", "", time.monotonic() - start)
    right = flat(checkpoint.restore_params(finished, step, like))
    same = all(np.array_equal(right[path], leaf) for path, leaf in flat(params).items())
    return Verdict(
        f"{name}: no effect",
        "" if same else "other numbers without a word",
        time.monotonic() - start,
    )


def _shapes(run: Path, step: int) -> Any:
    tree = checkpoint.as_saved(steps.folder(run, step).absolute() / "params")
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


@dataclass(frozen=True)
class Layout:
    """Devices, processes and mesh of a run."""

    devices: int = 1  # of each process
    count: int = 1
    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __str__(self) -> str:
        return f"{self.count} x {self.devices} devices, data {self.data} fsdp {self.fsdp} tensor {self.tensor}"

    @property
    def flags(self) -> tuple[str, ...]:
        sizes = {"data": self.data, "fsdp": self.fsdp, "tensor": self.tensor}
        return tuple(word for axis, size in sizes.items() for word in (f"--mesh.{axis}", str(size)))


def move(reference: Path, folder: Path, before: Layout, after: Layout) -> Verdict:
    """A run that is stopped on one mesh and goes on on another: the same losses within 1e-5."""
    processes = run(folder, *before.flags, count=before.count, devices=before.devices)
    while not steps.committed(folder) and processes.all[0].poll() is None:
        time.sleep(0.02)
    for process in processes.all:
        process.send_signal(signal.SIGKILL)
    processes.ended()
    whole(folder, *after.flags, count=after.count, devices=after.devices)
    found, expected = np.array(losses(folder)), np.array(losses(reference))
    wrong = "other steps" if found.shape != expected.shape else ""
    if not wrong:
        error = float(np.abs(found[:, 1] / expected[:, 1] - 1).max())
        wrong = "" if error < 1e-5 else f"losses differ by {error:.1e}"
    place = final(reference)["position"] == final(folder)["position"]
    return Verdict(f"{before} -> {after}", wrong or ("" if place else "another place in the data"))


def counted(verdicts: list[Verdict]) -> str:
    """How many of the trials passed."""
    return f"{sum(one.passed for one in verdicts)} of {len(verdicts)}"


def disk_full(folder: Path) -> Verdict:
    """A run on a file system that is full in the middle of a save: one line, code 4, the older step whole."""
    ended = run(folder).ended()[0]
    wrong = "" if ended.code == 4 else f"exit code {ended.code}"
    lines = ended.err.strip().splitlines()
    if not wrong and len(lines) != 1:
        wrong = f"{len(lines)} lines of errors"
    left = list((folder / steps.STEPS).glob("*tmp*"))
    broken = [step for step in steps.committed(folder) if checkpoint.flaw(folder, step)]
    return Verdict(f"full: {lines[-1:]}", wrong or (f"left {left}" if left or broken else ""))


def mounted(folder: Path, megabytes: float) -> bool:
    """A small file system of its own; False where this process may not make one."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={int(megabytes * 1024)}k", "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True).returncode == 0


@dataclass(frozen=True)
class Sample:
    """What a process holds at a step."""

    step: int
    megabytes: float
    files: int
    threads: int


def soak(folder: Path, steps_: int) -> tuple[Verdict, list[Sample]]:
    """A long run of small steps with scores and saves: what it holds of memory, files and threads may not grow."""
    flags = (
        "--steps",
        str(steps_),
        "--eval-every",
        "50",
        "--save-every",
        "50",
        "--log-every",
        "10",
    )
    processes = Processes(
        folder,
        ("finetune", str(TINY), "--out", str(folder), *flags, "--batch-size", "8"),
        count=1,
        devices=1,
    )
    [process], found = processes.all, []
    while process.poll() is None:
        time.sleep(0.25)
        done = max((row["step"] for row in rows_in(folder / METRICS)), default=0)
        if done and (not found or done >= found[-1].step + 10):
            found += [one for one in [_sampled(process.pid, done)] if one]
    [ended] = processes.ended()
    wrong = f"exit code {ended.code}: {ended.err[-200:]}" if ended.code else _growth(found)
    return Verdict(f"soak of {steps_} steps: {_held(found)}", wrong), found


def _sampled(pid: int, step: int) -> Sample | None:
    """None where the process has just ended."""
    place = Path(f"/proc/{pid}")
    try:
        pages = int((place / "statm").read_text().split()[1])
        files, threads = (len(list((place / kind).iterdir())) for kind in ("fd", "task"))
    except OSError:
        return None
    return Sample(step, pages * os.sysconf("SC_PAGE_SIZE") / 1e6, files, threads)


def slope(found: list[Sample]) -> float:
    """Megabytes by which memory grows in 100 steps, in the second half: in the first, programs are compiled and pools
    of threads and memory fill."""
    late = found[len(found) // 2 :]
    return 100 * float(
        np.polyfit([one.step for one in late], [one.megabytes for one in late], 1)[0]
    )


def _growth(found: list[Sample]) -> str:
    late = found[len(found) // 2 :]
    first, last = late[: len(late) // 3], late[-len(late) // 3 :]
    if slope(found) > 1.0:
        return f"memory grows by {slope(found):.2f} MB in 100 steps"
    for name in ("files", "threads"):
        before, after = (np.median([getattr(one, name) for one in part]) for part in (first, last))
        if after > before + 2:
            return f"{before:.0f} {name} became {after:.0f}"
    return ""


def _held(found: list[Sample]) -> str:
    last = found[-1]
    return f"{slope(found):+.2f} MB in 100 steps, {last.megabytes:.0f} MB, {last.files} files, {last.threads} threads"


def tests(*paths: str) -> list[Verdict]:
    """The tests of some files, each a trial."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        command = [sys.executable, "-m", "pytest", "-q", *paths, f"--junitxml={report}"]
        subprocess.run(command, capture_output=True, cwd=ROOT, check=False)
        cases = list(ET.parse(report).iter("testcase"))  # noqa: S314
    return [
        Verdict(
            f"test {case.get('name')}",
            "" if not any(case.iter("failure")) and not any(case.iter("error")) else "failed",
            float(case.get("time", 0)),
        )
        for case in cases
    ]
