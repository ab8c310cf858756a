"""Worker processes that read: the same batches for any number of them, and a sentence when one dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fmjax.config.data import DataConfig
from fmjax.config.tasks import ClassifyConfig
from fmjax.data.batches import eval_batches, train_batches
from fmjax.data.filling import Batches, Row
from fmjax.data.sources.folder import image_folder
from fmjax.data.workers import Ticket, Worker, Workers, _code
from fmjax.errors import DataError, UsageError
from fmjax.tasks.classify import Classify
from tests.support.runs import losses, quickstart
from tests.support.views import VIEW, slow, whether_jax, wrong

ROOT = Path(__file__).parents[2]
CONFIG = DataConfig(threads=2)


@pytest.fixture(scope="module")
def examples(tmp_path_factory):
    """Twelve pictures, one of which cannot be read."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        for i in range(6):
            pixels = rng.integers(0, 256, (20, 24, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{i}.png")
    (folder / "dog" / "4.png").write_bytes(b"<html>")
    return image_folder(folder).train


def trained(examples, workers: int, count: int, *, view=VIEW, rows=None, position=None):
    config = replace(CONFIG, workers=workers)
    iterator = train_batches(examples, view, config, batch_size=4, seed=3, rows=rows)
    if position is not None:
        iterator.set_state(position)
    return [next(iterator) for _ in range(count)], iterator.get_state()


def same(some, others) -> bool:
    assert len(some) == len(others) > 0
    return all(
        one.keys() == other.keys()
        and all(np.array_equal(one[name], other[name]) for name in one)
        and all(one[name].dtype == other[name].dtype for name in one)
        for one, other in zip(some, others, strict=True)
    )


def test_batches_and_positions_do_not_depend_on_the_number_of_workers(examples):
    alone, place = trained(examples, 0, 8)
    assert sum(batch["weight"].sum() for batch in alone) < 32
    for workers in (1, 3):
        found, where = trained(examples, workers, 8)
        assert same(found, alone)
        assert where == place
    # on from a position that threads have saved, and only some rows of each batch
    onward, _ = trained(examples, 2, 3, rows=(1, 3), position=place)
    expected, _ = trained(examples, 0, 3, rows=(1, 3), position=place)
    assert same(onward, expected)


def test_every_image_is_evaluated_once_by_workers_too(examples):
    alone, shared = (
        list(eval_batches(examples, VIEW, replace(CONFIG, workers=workers), batch_size=5))
        for workers in (0, 2)
    )
    assert same(shared, alone)
    assert np.concatenate([batch["index"] for batch in shared]).tolist() == [*range(12), -1, -1, -1]
    # and they have ended with it
    assert not [each for each in multiprocessing.active_children() if "Spawn" in each.name]


def test_workers_import_no_jax(examples):
    found, _ = trained(examples, 1, 2, view=whether_jax)
    assert not any(batch["jax"].any() for batch in found)
    # which a task's views alone need not, either
    assert Classify(ClassifyConfig(), VIEW).viewer is VIEW


def test_what_is_wrong_with_an_example_is_raised_where_the_batch_is_met(examples):
    with pytest.raises(DataError) as caught:
        trained(examples, 2, 8, view=wrong)
    assert str(caught.value) == "dog.png has a wrong mask"


def test_a_worker_that_dies_ends_the_run_with_its_name(examples):
    config = replace(CONFIG, workers=2)
    others = {each.pid for each in multiprocessing.active_children()}
    iterator = train_batches(examples, slow, config, batch_size=4, seed=0)
    next(iterator)
    children = multiprocessing.active_children()
    victim = next(each for each in children if each.pid not in others)
    os.kill(victim.pid, signal.SIGKILL)
    said = rf"process {victim.pid} by SIGKILL.*fewer --data\.workers"
    with pytest.raises(DataError, match=said):
        deque(islice(iterator, 100), maxlen=0)


def test_a_worker_that_dies_while_it_waits_ends_the_run_too(examples):
    """It takes the lock of the queue with it, for which the others would wait for ever."""
    like = {"x": np.int32(0)}
    workers = Workers(lambda index, rng: {"x": np.int32(index)}, like, 3)

    def start(place: int, row: Row) -> None:
        workers.read(Ticket.of(place), row)

    # 24 rows at most are under way, so that the workers wait in between
    batches = Batches(start, like, 6, count=1000, threads=2, told=workers.told)
    assert next(batches)["x"].tolist() == list(range(6))
    while batches.waiting() < 4:
        time.sleep(0.02)
    victim = _reading(workers)
    os.kill(victim, signal.SIGKILL)
    with pytest.raises(DataError, match=rf"process {victim} by SIGKILL"):
        deque(batches, maxlen=0)
    workers.close()


def test_how_a_worker_ended_is_waited_for_where_another_thread_asks_too():
    found = iter([None, None, None, -9])

    class Late(Worker):
        exitcode = property(lambda self: next(found, -9))

    assert _code(Late()) == -signal.SIGKILL


def _reading(workers: Workers) -> int:
    """The worker that waits for the next ticket, in read(2); the others wait for it."""
    while True:
        for process in workers._context.started:
            if Path(f"/proc/{process.pid}/syscall").read_text().startswith("0 "):
                return process.pid
        time.sleep(0.02)


# An iterator that is left in the middle of its batches, as a run that ends leaves it
LEFT = """
from fmjax.config.data import DataConfig
from fmjax.config.tasks import ClassifyConfig
from fmjax.data.batches import train_batches
from fmjax.data.sources.digits import digits
from tests.support.views import VIEW
if __name__ == "__main__":
    batches = train_batches(digits(), VIEW, DataConfig(workers=2), batch_size=4, seed=0)
    print(next(batches)["image"].shape, flush=True)
    {end}
"""


@pytest.mark.parametrize("end", ["", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"])
def test_workers_end_with_their_run(tmp_path, end):
    script = tmp_path / "left.py"
    script.write_text(LEFT.format(end=end))
    found = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    # pipes are closed when the last process has ended that holds them
    assert found.stdout == "(4, 16, 16, 3)\n"
    assert found.returncode == (-signal.SIGKILL if end else 0)
    # Grain itself says that it cannot profile with an older jaxlib
    said = [line for line in found.stderr.splitlines() if not line.startswith("WARNING:absl:Grain")]
    assert end or not said


def test_a_run_with_workers_has_the_bits_of_one_with_threads(tmp_path):
    flags = ("--steps", "3", "--batch-size", "8", "--log-every", "1", "--no-compare-random")
    found = []
    for workers in (0, 2):
        out = tmp_path / str(workers)
        process = quickstart(out, *flags, "--export", "none", "--data.workers", str(workers))
        _, error = process.communicate()
        assert process.returncode == 0, error
        found.append(losses(out))
    assert found[0] == found[1]


def test_a_wrong_number_of_workers_is_refused():
    with pytest.raises(UsageError, match=r"--data\.workers is -1; it must be 0 to 256"):
        DataConfig(workers=-1)
