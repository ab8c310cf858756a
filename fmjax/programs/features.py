"""`fmjax knn` and `probe`, and what `embed` has in common with them: what frozen weights know of a set of images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from jax.sharding import Mesh

from fmjax.config.features import FeaturesConfig, KnnConfig, ProbeConfig
from fmjax.console import console, counted
from fmjax.data import audit
from fmjax.data.batches import Batch, eval_batches
from fmjax.data.example import Examples, Splits, check_fields
from fmjax.data.sources import open_source
from fmjax.data.transforms import Views
from fmjax.engine import agreement, hosts
from fmjax.engine.backbone import asked_size, build_model
from fmjax.engine.evaluate import divisible, evaluate
from fmjax.engine.placement import mesh_of, own_rows
from fmjax.engine.plan import Learner
from fmjax.engine.step import Outputs, compiled_outputs
from fmjax.errors import DataError, UsageError, amount
from fmjax.models.vit import ViT
from fmjax.preprocessing import preprocess_config
from fmjax.tasks.embed import Embed, neighbours_accuracy
from fmjax.tasks.probe import fit, folds_accuracy
from fmjax.trees import Params, flat, nested

LABELLED = ("image", "label")  # what a vote and a regression need of an example


@dataclass(frozen=True)
class Embeddings:
    """features [N, E] float32 and labels [N], in the order of the source."""

    features: np.ndarray
    labels: np.ndarray
    names: list[str]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Network:
    """Frozen weights on a mesh: nothing is learned, and their pooled embedding is what they say."""

    learner: Learner
    params: Params
    outputs: Outputs
    mesh: Mesh

    @property
    def model(self) -> ViT:
        return self.learner.net["backbone"]

    def read(self, examples: Examples, config: FeaturesConfig) -> tuple[Iterator[Batch], int]:
        """A set in batches that divide over the mesh, of which a process reads its own rows; and their size."""
        size = divisible(config.batch_size, self.mesh)
        rows = own_rows(size, self.mesh)
        viewer = self.learner.task.viewer
        return eval_batches(examples, viewer, config.data, batch_size=size, rows=rows), size


def network(config: FeaturesConfig) -> Network:
    """The network of a config, its weights read."""
    mesh = mesh_of(config.mesh, console.print)
    image_size = preprocess_config(config.model.name, asked_size(config.model)).image_size
    model = build_model(config.model, image_size, mesh=mesh)
    images = preprocess_config(model, image_size)
    # the weights as they are, under the parameters' own names
    learner = Learner(Embed(None, Views(images)), (), images, {"backbone": model})
    params = nested(flat(learner.net))
    return Network(learner, params, compiled_outputs(learner, mesh), mesh)


def extract(
    config: FeaturesConfig, sets: list[Examples], found: Network | None = None
) -> list[Embeddings]:
    """The pooled embedding of every readable image of each set. found: the network, if it is there already."""
    agreement.check(config, the_images=[agreement.images_digest(one) for one in sets])
    found = found or network(config)

    def embed(examples: Examples) -> Embeddings:
        # in the order of the set, without those that cannot be read
        rows = evaluate(
            found.learner,
            found.outputs,
            found.params,
            examples,
            found.mesh,
            data=config.data,
            batch_size=config.batch_size,
            tell=console.print,
            watched=partial(counted_images, total=len(examples)),
        ).rows
        names = [examples.names(int(i)) for i in rows["index"]]
        labels = examples.labels[rows["index"]]
        return Embeddings(rows["features"], labels, names, examples.classes)

    return [embed(examples) for examples in sets]


def _of(asked: Embeddings) -> str:
    # what a score is over
    images, classes = len(asked.labels), len(asked.classes)
    return f"{amount(images, 'image')}, {amount(classes, 'class', 'classes')}"


def counted_images(batches: Any, total: int) -> Any:
    """Batches and their indices, while it is shown how far they are."""
    # padding is no image
    sized = ((int((index >= 0).sum()), (index, batch)) for index, batch in batches)
    return counted(sized, total, "images")


def opened(config: FeaturesConfig, needs: Sequence[str] = LABELLED) -> Splits:
    """The sets, having said what of them is left out and what they share. needs: the fields of an example."""
    # before the network is made: what is wrong with a folder is said within a second
    splits = open_source(config.data)
    check_fields(splits.train, needs, source=config.data.source)
    for line in audit.lines(splits, splits.train, splits.val):
        console.print(line)
    return splits


def knn_main(config: KnnConfig) -> float:
    """Accuracy of the nearest neighbours' vote, by cosine similarity."""
    with hosts.joined(config.hosts):
        return _neighbours(config)


def _neighbours(config: KnnConfig) -> float:
    splits = opened(config)
    # hours of work earlier than the readable ones are known
    _check_neighbours(config, len(splits.train))
    parts = extract(config, [s for s in (splits.train, splits.val) if s is not None])
    train, asked = parts[0], parts[-1]
    _check_neighbours(config, len(train.labels))
    alone = len(parts) == 1
    others = None if alone else asked.features
    accuracy = hosts.by_first(
        lambda: neighbours_accuracy(train.features, train.labels, others, asked.labels, k=config.k)
    )
    how = "leave-one-out" if alone else "train -> val"
    console.print(f"{config.k}-NN accuracy {accuracy:.1%} ({how}, {_of(asked)})")
    return accuracy


def probe_main(config: ProbeConfig) -> float:
    """Accuracy of a logistic regression on standardised embeddings."""
    with hosts.joined(config.hosts):
        return _probed(config)


def _probed(config: ProbeConfig) -> float:
    splits = opened(config)
    # hours of work earlier than the readable ones are known
    check_classes(config, splits.train, alone=splits.val is None)
    parts = extract(config, [s for s in (splits.train, splits.val) if s is not None])
    asked = parts[-1]
    check_classes(config, parts[0], alone=len(parts) == 1)
    # the solver takes all cores of a machine, which may have several processes
    accuracy, chosen = hosts.by_first(lambda: regression(config, parts))
    # a score says how it came about: folds and a held-out part are not comparable
    how = f"{config.folds} folds" if len(parts) == 1 else "train -> val"
    swept = f", C {' '.join(f'{c:.3g}' for c in chosen)} by the sweep" if config.sweep else ""
    console.print(f"linear probe accuracy {accuracy:.1%} ({how}, {_of(asked)}{swept})")
    return accuracy


def regression(config: ProbeConfig, parts: list[Embeddings]) -> tuple[float, list[float]]:
    """The accuracy on the last part of what is fitted to the first; over folds where there is one part; and each C."""
    train, asked = parts[0], parts[-1]
    settings = {
        "c": None if config.sweep else config.c,
        "seed": config.seed,
        "max_iter": config.max_iter,
    }
    if len(parts) == 1:
        return folds_accuracy(train.features, train.labels, folds=config.folds, **settings)
    found, used = fit(train.features, train.labels, **settings)
    return float(found.score(asked.features, asked.labels)), [used]


def _check_neighbours(config: KnnConfig, images: int) -> None:
    if config.k >= images:
        raise UsageError(f"--k {config.k} neighbours of {images} images; take fewer")


def check_classes(config: ProbeConfig, train: Embeddings | Examples, *, alone: bool) -> None:
    """Raises DataError where a class has too few images: for the folds, where there is no val/, or for the sweep."""
    counts = np.bincount(train.labels, minlength=len(train.classes))
    if alone:
        _check_folds(config, train, counts)
    # of what a fold leaves, the sweep needs one image to fit and one to ask
    left = counts - -(-counts // config.folds) if alone else counts
    few = np.flatnonzero((left < 2) & (counts > 0))
    if config.sweep and len(few):
        name, count = train.classes[few[0]], counts[few[0]]
        raise DataError(
            f"--sweep chooses the penalty on images that it holds out of every class; {name!r} has {count} readable "
            f"ones to train on{' in folds' if alone else ''}; add images, or leave --sweep out"
        )


def _check_folds(config: ProbeConfig, found: Embeddings | Examples, counts: np.ndarray) -> None:
    """Raises DataError, with the class and what would help, where a class has fewer images than there are folds."""
    few = np.flatnonzero(counts < config.folds)
    if not len(few):
        return
    named = ", ".join(f"{found.classes[i]!r} has {counts[i]}" for i in few[:3])
    more = f" and {len(few) - 3} more classes have too few" if len(few) > 3 else ""
    fewer = f"set --folds {counts.min()}, " if counts.min() >= 2 else ""
    raise DataError(
        f"{config.folds} folds need {config.folds} readable images of every class; {named}{more}; {fewer}add images, "
        f"take the class out, or make a val/ folder"
    )
