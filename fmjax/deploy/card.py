"""The page that a hub shows of a model: what it is made of, how good it is, how it is loaded, and its digests."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fmjax.errors import printable
from fmjax.specs import PreprocessConfig, Source, Weights

NAME = "README.md"
# licences by the ids that the hub knows; any other is shown by its name
LICENCES = {"Apache-2.0": "apache-2.0", "MIT": "mit", "CC-BY-NC-4.0": "cc-by-nc-4.0"}
SHOWN = 50  # classes that are listed
TIMM = """import timm

model = timm.create_model({folder!r}, pretrained=True).eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
"""
TRANSFORMERS = """import transformers

processor = transformers.AutoImageProcessor.from_pretrained({place!r})
model = transformers.{kind}.from_pretrained({place!r}).eval()
"""
FMJAX = """import fmjax

model = fmjax.load({name!r}, checkpoint={path!r})
images = fmjax.preprocess(["picture.jpg"], fmjax.preprocess_config(model))
answer = model(images).{output}
"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """What is told of a model."""

    title: str
    model: str  # the backbone, "arch.tag"
    weights: (
        Weights | None
    )  # that it began with; None for random numbers, and for weights without a row
    classes: Sequence[str]
    preprocessing: PreprocessConfig
    data: str  # what it was trained on, in words
    training: Mapping[str, object]  # of its run: task, steps, rates, ...
    scores: Mapping[str, float]
    dialect: str
    kind: str  # the class of transformers that loads it, for its dialects
    repository: str  # on the hub; "" for a folder
    files: Mapping[str, str]  # name -> sha256
    versions: Mapping[str, str]
    command: str

    @property
    def text(self) -> str:
        """Markdown, with the hub's facts in front of it. Names in it are anybody's, and are escaped."""
        licence = licence_of(self)
        # what a reader asks first comes first: is it for me, is it good, how do I run it
        parts = [
            _front(self),
            f"# {escape(self.title)}",
            self._summary(licence),
            "## Scores",
            table(
                ("score", "value"), [(name, f"{value:.4g}") for name, value in self.scores.items()]
            ),
            "## Loading it",
            *self._loading(),
            "## Classes",
            self._classes(),
            "## How it was made",
            table(("what", "value"), [(name, str(value)) for name, value in self.training.items()]),
            f"Written by <code>{escape(self.command)}</code> with {escape(_listed(self.versions))}.",
            "## The backbone",
            self._backbone(licence),
            "## Digests",
            table(("file", "sha256"), list(self.files.items())),
        ]
        return "\n\n".join(parts) + "\n"

    def _summary(self, licence: str) -> str:
        height, width = self.preprocessing.image_size
        return (
            f"{escape(self.model)}, fine-tuned on {escape(self.data)}, for images of {height} x {width}. The licence "
            f"of the weights that it began with is {escape(licence)}; that of the images binds, too."
        )

    def _loading(self) -> list[str]:
        place = self.repository or "FOLDER"
        prefix = "hf-hub:" if self.repository else "local-dir:"
        # fmjax reads a folder that is here; the others also find a repository by its name
        code = FMJAX.format(
            name=self.model,
            path="FOLDER",
            output="logits" if self.classes else "pooled",
        )
        blocks = [_python(code) + "\nFOLDER is where these files are."]
        if self.dialect == "timm":
            blocks.insert(0, _python(TIMM.format(folder=prefix + place)))
        elif self.kind:
            blocks.insert(0, _python(TRANSFORMERS.format(place=place, kind=self.kind)))
        return blocks

    def _classes(self) -> str:
        if not self.classes:
            return "none: its output is an embedding"
        names = ", ".join(map(escape, self.classes[:SHOWN]))
        more = len(self.classes) - SHOWN
        return names + (f", and {more:,} more in the config" if more > 0 else "")

    def _backbone(self, licence: str) -> str:
        rows = [("name", self.model), ("licence", licence)]
        if self.weights is not None:
            rows += [("published", address(source)) for source in self.weights.sources]
            rows += [("note", self.weights.note)] if self.weights.note else []
        return table(("what", "value"), rows)


def licence_of(card: Card) -> str:
    """Of the weights that a model began with, in words."""
    return card.weights.licence if card.weights else "none is known"


def _front(card: Card) -> str:
    """The facts that the hub reads, as YAML: every value is written as JSON, which is YAML too."""
    licence = licence_of(card)
    known = LICENCES.get(licence)
    # the hub sorts models by these: what they are for, and which library's button it shows
    task = "image-classification" if card.classes else "image-feature-extraction"
    library = "timm" if card.dialect == "timm" else "transformers"
    facts: dict[str, object] = {
        "license": known or "other",
        "library_name": library,
        "pipeline_tag": task,
        "tags": ["fmjax", task, library],
    }
    if not known:
        facts["license_name"] = licence
    published = card.weights.sources if card.weights else ()
    repositories = [source.location for source in published if source.kind == "hf"]
    if repositories:
        facts["base_model"] = repositories[0]
    lines = [f"{name}: {json.dumps(value)}" for name, value in facts.items()]
    return "\n".join(["---", *lines, "---"])


def address(source: Source) -> str:
    """Where a file is published, for a reader."""
    if source.kind == "hf":
        return f"https://huggingface.co/{source.location} ({source.filename})"
    return source.location


def table(heads: tuple[str, str], rows: Iterable[tuple[str, str]]) -> str:
    """Two columns of Markdown; a word where there are no rows."""
    lines = [f"| {escape(left)} | {escape(right)} |" for left, right in rows]
    return "\n".join([f"| {heads[0]} | {heads[1]} |", "|---|---|", *lines]) if lines else "none"


def escape(text: str) -> str:
    """A text as it may stand in Markdown: no tag, no cell, no code and no line of its own."""
    shown = html.escape(printable(" ".join(str(text).split())), quote=False)
    for letter in "|`*[]":
        shown = shown.replace(letter, f"&#{ord(letter)};")
    return shown


def _python(code: str) -> str:
    return f"```python\n{code}```"


def _listed(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())
