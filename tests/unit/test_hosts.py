"""What a process knows of the others: where it stands among them, who lives, where all stop, what differs."""

from __future__ import annotations

import threading

import numpy as np
import pytest

from fmjax.config import HostsConfig, RunConfig
from fmjax.config.data import DataConfig
from fmjax.config.recipe import Recipe
from fmjax.data.batches import eval_batches, eval_indices, train_batches
from fmjax.data.sources.digits import digits
from fmjax.data.transforms import Views
from fmjax.engine import peers
from fmjax.engine.agreement import differences, digest, images_digest, settings
from fmjax.engine.launchers import Place, place
from fmjax.engine.peers import Peers
from fmjax.errors import DataError, UsageError
from fmjax.preprocessing import PreprocessConfig

SRUN = {
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_PROCID": "11",
    "SLURM_LOCALID": "3",
    "SLURM_STEP_TASKS_PER_NODE": "8(x2)",
}
MPIRUN = {
    "OMPI_COMM_WORLD_SIZE": "2",
    "OMPI_COMM_WORLD_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_RANK": "0",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "1",
}
EIGHT = {"CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}


@pytest.mark.parametrize(
    ("flags", "environment", "expected"),
    [
        ({}, {}, None),
        ({"count": 1}, SRUN, None),
        ({}, {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16", "SLURM_PROCID": "0"}, None),
        ({}, SRUN | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}, None),
        ({}, SRUN, Place(None, 16, 11, None)),
        ({}, SRUN | EIGHT, Place(None, 16, 11, [3])),
        ({}, SRUN | {"CUDA_VISIBLE_DEVICES": "3"}, Place(None, 16, 11, [])),
        ({}, SRUN | EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "4"}, Place(None, 16, 11, [6, 7])),
        ({}, SRUN | EIGHT | {"SLURM_STEP_TASKS_PER_NODE": "1(x16)"}, Place(None, 16, 11, [])),
        ({"coordinator": "n1:99"}, MPIRUN, Place("n1:99", 2, 1, [])),
        ({"coordinator": "n1:99", "count": 4, "index": 0}, {}, Place("n1:99", 4, 0, [])),
        ({"coordinator": "n1:99", "count": 1, "index": 0}, {}, None),
        ({"coordinator": "auto"}, {}, Place(None, None, None, None)),
    ],
)
def test_a_launcher_or_flags_say_where_a_process_stands(flags, environment, expected):
    assert place(HostsConfig(**flags), environment) == expected


@pytest.mark.parametrize(
    ("flags", "environment", "sentence"),
    [
        ({"coordinator": "n1:99"}, {}, "--hosts.count and --hosts.index must be passed too"),
        ({"count": 4, "index": 1}, {}, "--hosts.coordinator must be passed too"),
        ({"count": 4}, {}, "--hosts.coordinator and --hosts.index must be passed too"),
        ({"count": 8}, SRUN, "--hosts.count is 8, and srun has started 16 processes"),
        ({"index": 2}, MPIRUN, "--hosts.index is 2, and mpirun says that this is process 1"),
    ],
)
def test_half_of_it_or_another_number_is_refused(flags, environment, sentence):
    with pytest.raises(UsageError, match=sentence):
        place(HostsConfig(**flags), environment)


@pytest.mark.parametrize(
    "flags",
    [
        {"coordinator": "n1"},
        {"coordinator": "n1:99999"},
        {"coordinator": "a b:1"},
        {"count": -1},
        {"index": 4, "count": 4},
        {"join_timeout_s": 0},
    ],
)
def test_a_flag_that_cannot_be_is_named(flags):
    with pytest.raises(UsageError, match=r"^--hosts\.[a-z-]+ is .*; it must be "):
        HostsConfig(**flags)


class Store:
    """What JAX's coordination service keeps, for processes that are threads of this one."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.barriers: dict[str, threading.Barrier] = {}

    def key_value_set(self, key: str, value: str, allow_overwrite: bool = False) -> None:
        if allow_overwrite or key not in self.values:
            self.values[key] = value

    def key_value_dir_get(self, key: str) -> list[tuple[str, str]]:
        return [item for item in self.values.items() if item[0].startswith(f"{key}/")]

    def key_value_delete(self, key: str) -> None:
        del self.values[key]

    def wait_at_barrier(self, name: str, timeout_ms: int) -> None:
        self.barriers.setdefault(name, threading.Barrier(2)).wait(timeout_ms / 1000)


class Left(Exception):
    """In the place of the end of a process."""


@pytest.fixture
def two(monkeypatch) -> list[Peers]:
    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(peers.os, "_exit", leave)
    monkeypatch.setattr(peers, "LINGER_S", 0.0)
    store = Store()
    return [Peers(store, index, ["n0", "n1"]) for index in range(2)]


def both(two: list[Peers], call) -> list:
    found = {}
    threads = [
        threading.Thread(target=lambda one=one: found.update({one.index: call(one)})) for one in two
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [found[index] for index in range(2)]


def test_each_hears_what_all_say_and_the_store_does_not_grow(two):
    for round_ in range(3):
        heard = both(two, lambda one, n=round_: one.exchanged([one.index, n]))
        assert heard == [[[0, round_], [1, round_]]] * 2
    assert len(two[0].client.values) == 2


def test_all_stop_at_the_same_place_whoever_was_asked_and_wherever_they_were(two):
    first, second = two
    for _ in range(7):
        assert not first.stops(asked=False)
    for _ in range(3):
        assert not second.stops(asked=False)
    assert not second.stops(asked=True)
    both(two, lambda one: one._agree())
    assert first.stops(asked=False)
    assert [second.stops(asked=True) for _ in range(4)] == [False, False, False, True]


def test_a_process_without_a_sign_of_life_is_named(two, monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(peers.time, "monotonic", lambda: now[0])
    one = Peers(two[0].client, 0, ["n0", "n1"])
    for _ in range(5):
        now[0] += peers.LOST_S / 4
        two[1]._say("alive/1", str(now[0]))
        one._look()
    for _ in range(4):
        now[0] += peers.LOST_S / 4
        one._look()
    now[0] += peers.LOST_S / 4
    with pytest.raises(Left) as left:
        one._look()
    assert left.value.args == (peers.CODE,)
    expected = "fmjax: process 1 (n1) died; run the same command again on all hosts"
    assert capsys.readouterr().err.startswith(expected)


def test_the_error_of_one_is_the_end_of_the_others_with_its_sentence_and_code(two, capsys):
    with pytest.raises(Left):
        two[1].fail(DataError("the mask x.png is torn"))
    with pytest.raises(Left) as left:
        two[0]._look()
    assert left.value.args == (3,)
    assert capsys.readouterr().err.splitlines() == [
        "fmjax: the mask x.png is torn",
        "fmjax: process 1 (n1) stopped: the mask x.png is torn",
    ]


def test_what_differs_is_told_by_its_flag_and_what_is_of_each_alone_is_not_compared():
    one = RunConfig(hosts=HostsConfig(count=1, index=0))
    other = RunConfig(
        recipe=Recipe(lr=0.5), data=DataConfig(threads=9, data_dir="x"), hosts=HostsConfig()
    )
    assert differences(settings(one), settings(other)) == ["recipe.lr is 0.5, not 0.0001"]
    examples = digits()
    assert images_digest(examples) == images_digest(digits())
    assert images_digest(examples) != images_digest(examples.subset(np.arange(1796)))
    assert digest([b"ab", b"c"]) != digest([b"a", b"bc"])


SMALL = PreprocessConfig(image_size=(8, 8), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PARTS = ([0, 1, 4, 5], [2, 3, 6])


def test_the_parts_of_a_batch_are_the_batch_and_their_positions_are_its_position():
    config, view = DataConfig(threads=2), Views(SMALL, 0.5, 0.5)

    def batches(rows=None):
        return train_batches(digits(), view, config, batch_size=7, seed=3, rows=rows)

    whole, parts = batches(), [batches(rows) for rows in PARTS]
    # into the next epoch: 1797 images are 256 batches and 5 images
    for one in (whole, *parts):
        one.set_state({"next_index": 254})
    for _ in range(4):
        expected, found = next(whole), [next(part) for part in parts]
        for name, rows in expected.items():
            for part, chosen in zip(found, PARTS, strict=True):
                assert np.array_equal(part[name], rows[chosen]), name
    assert [part.get_state() for part in parts] == [whole.get_state()] * 2


def test_the_parts_of_an_evaluation_are_the_evaluation():
    examples, config, view = digits().subset(np.arange(16)), DataConfig(), Views(SMALL, 0.5, 0.5)
    whole = list(eval_batches(examples, view, config, batch_size=7))
    assert eval_indices(16, 7).tolist() == [batch["index"].tolist() for batch in whole]
    for rows in PARTS:
        part = eval_batches(examples, view, config, batch_size=7, rows=rows)
        for found, expected in zip(part, whole, strict=True):
            assert all(np.array_equal(found[name], expected[name][rows]) for name in expected)
