"""What is said of the steps that a device has done, and which of them end a run."""

from __future__ import annotations

import numpy as np
import pytest

from fmjax.engine import alarms
from fmjax.engine.alarms import Alarms, Step
from fmjax.engine.evaluate import NotFinite, check_finite
from fmjax.errors import DivergedError

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def said() -> list[str]:
    return []


def watching(said: list[str], *, limit: int = 10, saved=(), losses=()) -> Alarms:
    return Alarms(limit, said.append, lambda: list(saved), losses)


def step(number: int, loss: float = 1.0, norm: float = 1.0, row: int = 0, **logs) -> Step:
    found = {"loss": loss, "grad_norm": norm, "skipped": row, "skipped_in_row": row, **logs}
    arrays = {name: np.float32(value) for name, value in found.items()}
    return Step(number, np.array([30, 7, 19]), arrays)


def look(found: Alarms, *steps: Step) -> None:
    for each in steps:
        found.add(each)
    found.look()


def test_a_skipped_step_is_told_with_its_examples(said):
    look(watching(said), step(1), step(2, NAN, NAN, 1), step(3, 2.5, INF, 2), step(4))
    assert said == [
        "step 2 skipped: loss nan, norm of the gradient nan; its examples: 7, 19, 30",
        "step 3 skipped: loss 2.5, norm of the gradient inf; its examples: 7, 19, 30",
    ]


def test_of_a_large_batch_not_all_examples_are_told(said):
    found = watching(said)
    found.add(Step(2, np.arange(500), step(2, NAN, NAN, 1).logs))
    found.look()
    assert said[0].endswith(" 62, 63, ... (500 in all)")


def test_an_overflow_is_told_with_the_new_scale(said):
    look(watching(said), step(3, 2.0, INF, 0, loss_scale=32768))
    (line,) = said
    assert line.startswith("step 3: the gradient overflowed in float16")
    assert "3.277e+04" in line


def test_nothing_is_waited_for_before_a_look(said):
    class Late:
        def __array__(self, *_: object) -> np.ndarray:
            raise AssertionError("the host waits")

    found = watching(said)
    found.add(Step(1, np.arange(3), dict.fromkeys(alarms.LOOKED_AT, Late())))
    assert said == []
    assert not found.full


def test_it_is_full_after_so_many_steps_that_nobody_looked_at(said):
    found = watching(said)
    for number in range(alarms.UNSEEN):
        assert not found.full
        found.add(step(number))
    assert found.full
    found.look()
    assert not found.full


def row_of(count: int, first: int) -> list[Step]:
    return [step(first + i, NAN, NAN, i + 1) for i in range(count)]


def test_as_many_as_allowed_go_on_and_one_more_ends_the_run(said):
    found = watching(said, limit=3, saved=(20, 30))
    look(found, *row_of(3, 32), step(35), *row_of(3, 36))
    with pytest.raises(DivergedError) as caught:
        look(found, step(39, NAN, NAN, 4))
    assert str(caught.value) == (
        "steps 36 to 39 were skipped, as their loss or gradient is not finite, more than --recipe.max-skipped 3 in a "
        "row; lower --recipe.lr and go on from step 30, the last good one that is saved, with --from-step 30"
    )


def test_whether_a_run_ends_does_not_depend_on_when_it_is_looked(said):
    with pytest.raises(DivergedError, match="steps 5 to 6 were skipped"):
        look(watching(said, limit=1), step(4), *row_of(2, 5), step(7))


@pytest.mark.parametrize(
    ("saved", "way"),
    [
        # 9 was tried by step 10 and found good; 10 holds the parameters with which step 11 failed
        ((8, 9, 10, 12), "go on from step 9, the last good one that is saved, with --from-step 9"),
        ((10, 12), "start over with --fresh, as no good step is saved"),
        ((), "start over with --fresh"),
    ],
)
def test_the_last_good_step_is_one_whose_parameters_have_worked(said, saved, way):
    with pytest.raises(DivergedError, match=way):
        look(watching(said, limit=1, saved=saved), step(10), *row_of(2, 11))


def test_a_loss_that_leaps_is_told_with_the_median_and_the_run_goes_on(said):
    look(watching(said), *(step(i, 2.0 + i / 10) for i in range(10)), step(10, 2_450.0), step(11))
    assert said == ["step 10: loss 2450 leaps above the last 10, of median 2.45"]


@pytest.mark.parametrize(
    "losses",
    [
        [2.0] * 9 + [2_000.0],  # too few to compare with
        [0.6]
        + [0.01] * 30
        + [0.8]
        + [0.01] * 9
        + [0.9]
        + [0.01] * 5
        + [1.2],  # of small batches near zero
        [1.0] * 20 + [2.9],
        [1.0] * 20 + [NAN, 1.0],
        [2.0] * 30 + [5.9] * 30,  # another level
    ],
)
def test_what_is_no_leap_is_not_told(said, losses):
    look(watching(said), *(step(i, loss) for i, loss in enumerate(losses)))
    assert said == []


def test_losses_of_before_a_resume_are_compared_with(said):
    look(watching(said, losses=[2.0] * 50), step(1, 2_000.0))
    assert len(said) == 1


def test_outputs_that_are_no_numbers_are_no_score(said):
    def names(index: int) -> str:
        return f"cat/{index}.png"

    rows = {"index": np.array([4, 5, 6]), "logits": np.ones((3, 2), np.float32)}
    check_finite(rows, names)
    rows["logits"][1, 0] = NAN
    with pytest.raises(
        NotFinite, match=r"'logits' are not finite for 1 of 3 images, as cat/5\.png; compute in"
    ):
        check_finite(rows, names)


def test_a_score_that_is_none_ends_the_run_with_a_way_out(said):
    found = watching(said, saved=(10, 20))
    with (
        pytest.raises(DivergedError, match=r"^after step 20 no numbers; lower .* from step 10,"),
        found.scoring(20),
    ):
        raise NotFinite("no numbers")
