"""What is known of the classifier of a loaded model: which pictures it is shown, and what its outputs mean."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from fmjax.errors import UsageError
from fmjax.models.vit import ViT
from fmjax.names import get_weights
from fmjax.preprocessing import preprocess_config
from fmjax.specs import LogitReading, ModelFacts, Weights
from fmjax.weights.adapters import Adapters

IMAGENET = "imagenet1k"  # what rows call the set, where they say the accuracy on it
# of tensorflow-datasets, which fmjax depends on: WordNet's number of each class, in the order of all published heads
LABELS = "datasets/imagenet2012/labels.txt"


def with_facts(model: ViT, tuned: Adapters | None, *, published: bool, own: bool) -> ViT:
    """The model with what is known of its classifier.

    tuned: the adapters that were loaded with it. published: whether the weights are those behind a name, not a file of
    the user's. own: whether the classifier came with them; of a new one nothing is known.
    """
    if not own or model.classifier is None:
        return model
    # adapters know their classes; of a file nothing says what its outputs mean
    if tuned is not None:
        model.facts = _facts(model, tuned.facts.classes, tuned.facts.reading)
    elif published and _is_imagenet(get_weights(model.spec.weights)):
        model.facts = _facts(model, _imagenet())
    else:
        model.facts = _facts(model, ())
    return model


def _facts(
    model: ViT, classes: tuple[str, ...], reading: LogitReading = "softmax"
) -> ModelFacts | None:
    """None where nobody knows how pictures are prepared for an architecture."""
    try:
        images = preprocess_config(model)
    except UsageError:
        return None
    return ModelFacts(images=images, classes=classes, reading=reading)


def _is_imagenet(row: Weights) -> bool:
    return row.num_classes == 1000 and IMAGENET in row.accuracy


def _imagenet() -> tuple[str, ...]:
    """The classes by their WordNet numbers (n01440764): no library that fmjax depends on has their words."""
    # found, and not imported: the library takes seconds, and this is one file of it
    library = find_spec("tensorflow_datasets")
    if library is None or library.origin is None:
        return ()
    path = Path(library.origin).parent / LABELS
    return tuple(path.read_text().split()) if path.is_file() else ()
