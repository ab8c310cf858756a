"""A pure function over every example of a set, once: training's scores, `fmjax eval`, embed, knn and probe."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from fmjax.config.data import ImagesConfig
from fmjax.data.batches import Batch, eval_batches, eval_indices
from fmjax.data.example import Examples
from fmjax.engine.placement import on_mesh, own_rows
from fmjax.engine.plan import Learner
from fmjax.engine.step import Outputs
from fmjax.engine.unreadable import SharedBadImages, Tell
from fmjax.errors import DataError, DivergedError, amount, escaped
from fmjax.sharding import batch_divisor
from fmjax.tasks.task import check_scores
from fmjax.trees import Params


class NotFinite(DivergedError):
    """Outputs of a network that are no numbers. found: which, without a way out."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"{found}; compute in float32 (--model.dtype), or take an older checkpoint (--step)"
        )
        self.found = found


@dataclass(frozen=True)
class Scores:
    """Numbers of all readable examples, the rows that they come from (`index`: their place in the set), and how many
    examples could not be read."""

    numbers: dict[str, float]
    rows: Mapping[str, np.ndarray]
    unreadable: int

    def __getitem__(self, name: str) -> float:
        return self.numbers[name]

    def __len__(self) -> int:
        return len(self.rows["index"])


def evaluate(
    learner: Learner,
    outputs: Outputs,
    params: Params,
    examples: Examples,
    mesh: Mesh,
    *,
    data: ImagesConfig,
    batch_size: int,
    tell: Tell,
    watched: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> Scores:
    """The scores over a set; they do not depend on the batch size or the devices.

    outputs: the learner's, jitted. tell: is given the names of pictures that cannot be read. watched: stands between
    the batches and their use, to show how far it is.
    """
    # the last batch is padded anyway: a larger one changes no row
    size = divisible(batch_size, mesh)
    rows = own_rows(size, mesh)
    batches = eval_batches(examples, learner.task.viewer, data, batch_size=size, rows=rows)
    bad = SharedBadImages(examples, data.max_bad, data.max_bad_share)
    found = gathered(
        lambda batch: outputs(params, on_mesh(batch, mesh, size)),
        watched(zip(eval_indices(len(examples), size), batches, strict=True)),
        bad=bad,
        tell=tell,
    )
    # of all rows at once: a mean over batches would depend on their size
    numbers = learner.task.scores(found, learner.labels)
    check_scores(learner.task, numbers)
    return Scores(numbers, found, len(bad.indices))


def gathered(
    outputs: Callable[[Batch], tuple[Mapping[str, Any], Any]],
    batches: Iterable[tuple[np.ndarray, Batch]],
    *,
    bad: SharedBadImages,
    tell: Tell,
) -> dict[str, np.ndarray]:
    """The rows of all readable examples, in order, and their `index` in the set. Raises DataError where there is
    none, and NotFinite where numbers are none.

    outputs: of a batch, the rows and the weights of all its examples. batches: the indices of all examples of each
    batch, and what this process has read of it.
    """
    everything = list(pieces(outputs, batches, bad=bad, tell=tell))
    if not everything or not len(everything[0]["index"]):
        raise DataError(f"none of {amount(len(bad.examples), 'image')} can be read")
    return everything[0]


def pieces(
    outputs: Callable[[Batch], tuple[Mapping[str, Any], Any]],
    batches: Iterable[tuple[np.ndarray, Batch]],
    *,
    bad: SharedBadImages,
    tell: Tell,
    images: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """The same in pieces of so many images, or a few more, as a batch is in one piece; None: in one. A piece may have
    no rows."""
    kept: dict[str, list[np.ndarray]] = {}
    count = 0
    for index, batch in batches:
        bad.name(batch, tell)
        rows, weight = outputs(batch)
        # padding, and what could not be read, has no row
        real = np.asarray(weight) > 0
        for name, row in {"index": index, **rows}.items():
            kept.setdefault(name, []).append(np.asarray(row)[real])
        count += len(index)
        if images is not None and count >= images:
            yield _joined(kept, bad, tell)
            kept, count = {}, 0
    if kept:
        yield _joined(kept, bad, tell)
    else:
        bad.meet(tell)


def _joined(
    kept: Mapping[str, list[np.ndarray]], bad: SharedBadImages, tell: Tell
) -> dict[str, np.ndarray]:
    bad.meet(tell)
    found = {name: np.concatenate(parts) for name, parts in kept.items()}
    # nothing to look at where no image of a piece could be read
    if len(found["index"]):
        check_finite(found, bad.examples.names)
    return found


def check_finite(rows: Mapping[str, np.ndarray], names: Callable[[int], str]) -> None:
    """Raises NotFinite where a network has given an example infinity or NaN: a score of them would look like one."""
    for name, row in rows.items():
        # numpy does not count bfloat16 among its own
        if not jnp.issubdtype(row.dtype, jnp.floating):
            continue
        wrong = np.flatnonzero(~np.isfinite(row).reshape(len(row), -1).all(1))
        if len(wrong):
            first = escaped(names(int(rows["index"][wrong[0]])))
            raise NotFinite(
                f"the network's {name!r} are not finite for {len(wrong):,} of {len(row):,} images, as {first}"
            )


def divisible(batch_size: int, mesh: Mesh) -> int:
    """The batch size, or the next one that divides over the devices."""
    devices = batch_divisor(mesh)
    # up, as rounding down could leave no image at all
    return -(-batch_size // devices) * devices
