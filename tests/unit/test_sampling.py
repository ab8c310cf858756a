"""Every class as often: the order of balanced batches."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fmjax.config import ClassifyConfig, DataConfig, RunConfig
from fmjax.data.batches import train_batches
from fmjax.data.example import Examples
from fmjax.data.sampling import balanced, check_sampling
from fmjax.errors import UsageError

COUNTS = (40, 3, 0, 9)  # of each class; the third has no images
BALANCED = DataConfig(sampling="balanced", threads=2)


def uneven() -> Examples:
    labels = np.repeat(np.arange(4), COUNTS).astype(np.int32)
    labels = np.random.default_rng(0).permutation(labels)
    blank = np.zeros((8, 8, 3), np.uint8)
    return Examples({"image": lambda i: blank}, labels, ("a", "b", "c", "d"), str)


def view(example: dict, rng: np.random.Generator | None) -> dict:
    drawn = 0.0 if rng is None else rng.random()
    return {"label": example["label"], "drawn": np.float64(drawn)}


def batches(config: DataConfig = BALANCED, rows=None, seed: int = 5):
    return train_batches(uneven(), view, config, batch_size=6, seed=seed, rows=rows)


def test_every_round_has_every_class_once_and_of_each_all_images_in_turn():
    examples, order = uneven(), balanced(uneven(), 5)
    found = np.asarray([order[place] for place in range(3 * 240)])
    rounds = examples.labels[found].reshape(-1, 3)
    assert np.array_equal(np.sort(rounds, 1), np.tile([0, 1, 3], (240, 1)))
    assert len({tuple(row) for row in rounds.tolist()}) == 6  # in any order
    for number, count in ((0, 40), (1, 3), (3, 9)):
        turns = found[examples.labels[found] == number]
        whole = turns[: len(turns) // count * count].reshape(-1, count)
        assert np.array_equal(np.sort(whole, 1), np.tile(np.sort(whole[0]), (len(whole), 1)))
        assert len({tuple(row) for row in whole.tolist()}) > 1  # each time in another order


def test_batches_have_every_class_as_often_and_differ_between_seeds():
    one, other = batches(), batches(seed=6)
    found = [next(one) for _ in range(10)]
    for batch in found:
        assert np.bincount(batch["label"], minlength=4).tolist() == [2, 2, 0, 2]
    drawn = np.concatenate([batch["drawn"] for batch in found])
    assert len(set(drawn.tolist())) == 60  # an image that comes again is changed anew
    assert not np.array_equal(
        np.concatenate([batch["index"] for batch in found]),
        np.concatenate([next(other)["index"] for _ in range(10)]),
    )
    plain = batches(DataConfig())
    assert np.bincount(next(plain)["label"], minlength=4)[0] > 3


def test_the_order_does_not_depend_on_threads_processes_or_where_a_run_goes_on():
    whole, many = batches(), batches(replace(BALANCED, threads=5))
    parts, late = [batches(rows=[0, 1, 4]), batches(rows=[2, 3, 5])], batches()
    for number in range(30):
        if number == 11:
            late.set_state(whole.get_state())
        expected, found = next(whole), [next(part) for part in parts]
        others = [next(many)] + [next(late)] * (number >= 11)
        for name, rows in expected.items():
            assert all(np.array_equal(rows, other[name]) for other in others), name
            assert np.array_equal(rows[[0, 1, 4]], found[0][name]), name
            assert np.array_equal(rows[[2, 3, 5]], found[1][name]), name
    assert [part.get_state() for part in parts] == [whole.get_state()] * 2


def test_a_sampler_without_labels_is_refused():
    masks = replace(uneven(), labelled=False)
    with pytest.raises(UsageError, match=r"--data\.sampling is 'balanced'; it must be 'shuffled'"):
        check_sampling(masks, BALANCED)
    check_sampling(masks, DataConfig())
    check_sampling(uneven(), BALANCED)


def test_to_balance_twice_is_refused():
    with pytest.raises(UsageError, match="rare classes would count twice"):
        RunConfig(data=BALANCED, task=ClassifyConfig(class_weights="balanced"))
    RunConfig(data=BALANCED, task=ClassifyConfig(class_weights=(1.0, 2.0)))
