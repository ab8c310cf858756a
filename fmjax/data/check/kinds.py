"""The kinds of findings: how bad each is, what it says and what helps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from fmjax.data import folders
from fmjax.data.sources import masks

# error: a run would stop. warning: it goes on, and learns or scores something else than is believed. note: there is a
# rule for it, and a person should know
Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")


@dataclass(frozen=True)
class Kind:
    """One kind of finding. says: of what is counted. fix: what a person does."""

    severity: Severity
    says: str
    fix: str


@dataclass(frozen=True)
class Finding:
    """All that was found of one kind. tell: the row of a number, in words; rows are worded when they are asked for.

    known: how many there are words for; -1 for all. Some sources count what they leave out, and name the first.
    """

    kind: str
    count: int
    tell: Callable[[int], str]
    known: int = -1

    @property
    def severity(self) -> Severity:
        return KINDS[self.kind].severity

    def rows(self, limit: int | None = None) -> Iterator[str]:
        """The rows, or the first few of them."""
        there = self.count if self.known < 0 else self.known
        return map(self.tell, range(there if limit is None else min(limit, there)))


def listed(kind: str, rows: Sequence[str]) -> list[Finding]:
    """One finding of some rows; none where there are none."""
    return [Finding(kind, len(rows), rows.__getitem__)] if rows else []


def by_severity(findings: Iterable[Finding]) -> list[Finding]:
    """The worst first; within that, in the order of the table."""
    order = list(KINDS)
    return sorted(
        findings, key=lambda found: (SEVERITIES.index(found.severity), order.index(found.kind))
    )


MADE_FOR = "what the network gets is in docs/images.md"
KINDS: dict[str, Kind] = {
    # of the source and its folders
    "refused": Kind("error", "refusals by a run", "do what the sentence says"),
    "two-folders-for-a-part": Kind("error", "folders for a part that has another", "join them, or rename one"),
    "class-not-in-train": Kind("error", "classes that train has not", "add them to train, rename or remove them"),
    "class-without-images": Kind("error", "classes without images", "add images or remove the folders"),
    "class-twins": Kind("error", "classes that differ in letter case, accents or spaces only", "join them"),
    "class-by-link": Kind("error", "classes that are another class's folder by a link", "remove the link"),
    "one-class": Kind("error", "sets of one class", "classification needs two or more"),
    "class-of-one-image": Kind("error", "classes of one image, which cannot be split", "add some, or make a val/"),
    "too-many-unreadable": Kind(
        "error", "parts with more unreadable images than a run takes", "repair them, or raise --data.max-bad"
    ),
    "wrong-mask": Kind("error", "masks that do not fit their image or its classes", "save them anew"),
    # of single pictures
    "unreadable": Kind("warning", "unreadable images, which are left out", "repair or remove them"),
    "one-colour": Kind("warning", "images of one colour", "remove them, if nothing is to be seen there"),
    "small": Kind("warning", "images with a short side", "the network sees them blurred; take larger ones"),
    "large": Kind("warning", "images of many pixels, which take long to decode", "make them smaller"),
    "long": Kind("warning", "images much longer than wide", "evaluation sees their centre only; cut them"),
    "other-format": Kind("warning", "images of another format than their suffix says", "rename them"),
    "several-frames": Kind("warning", "files of several pictures, of which the first is used", "take them apart"),
    # of what is there twice
    "in-two-parts": Kind("warning", "images that are in another part too", "remove them from one"),
    "two-labels": Kind("warning", "copies of an image with another label", "one of the labels is wrong"),
    "copy": Kind("warning", "copies of an image within a part", "remove them; they weigh more than others"),
    "nearly-in-two-parts": Kind("warning", "images much like one in another part", "look at both"),
    "nearly-a-copy": Kind("note", "images much like another of their part", "look at both"),
    # of what a network sees, where one is asked
    "alike-in-two-parts": Kind("warning", "images close to one of another part in the embedding", "look at both"),
    "doubtful-label": Kind("warning", "images whose neighbours in the embedding are of another class", "look at them"),
    "alike": Kind("note", "images close to another of their part in the embedding", "look at both"),
    "outlier": Kind("note", "images far from all others in the embedding", "look at them"),
    # of the classes
    "class-not-in-val": Kind("warning", "classes that no val image is of", "their score is not known; add some"),
    "class-with-one-image": Kind("warning", "classes with one image to learn from", "add some"),
    "imbalance": Kind("warning", "classes far smaller than the largest", "weigh or sample classes evenly"),
    # of what is not used
    "dead-link": Kind("warning", folders.DEAD, "restore what they link to"),
    "special-file": Kind("warning", folders.SPECIAL, "remove them"),
    "without-suffix": Kind("warning", f"files {folders.NO_SUFFIX}", "name them as what they are, like .jpg"),
    "other-suffix": Kind("warning", f"files {folders.SUFFIX}", "convert them, if they are images"),
    "outside-classes": Kind("warning", folders.OUTSIDE, "put each into the folder of its class"),
    "linked-folder": Kind("warning", f"{folders.LINKED} within a class", "copy what they link to"),
    "closed-folder": Kind("warning", folders.CLOSED, "give yourself the right to read them"),
    "beside-parts": Kind("warning", folders.BESIDE, "move them, if they are classes"),
    "mask-without-image": Kind("warning", masks.ALONE, "add the images"),
    "mask-of-other-format": Kind("warning", masks.NO_PNG, "save masks as PNG"),
    "left-out": Kind("warning", "entries that are left out", "see what each is"),
    "system-file": Kind("note", f"files that are {folders.HIDDEN}", "nothing; they are left out"),
    "nested": Kind("note", "images in folders below a class folder, which count for it", "nothing, if so meant"),
    # of kinds of pixels, for each of which there is a rule
    "cmyk": Kind("note", "CMYK images, converted without a colour profile", MADE_FOR),
    "16-bit": Kind("note", "images of 16 bits, scaled to 8", MADE_FOR),
    "float": Kind("note", "images of floats, which must be in 0..1", MADE_FOR),
    "palette": Kind("note", "images with a palette", MADE_FOR),
    "one-bit": Kind("note", "images of one bit", MADE_FOR),
    "alpha": Kind("note", "images with transparency, laid over white", MADE_FOR),
    "turned": Kind("note", "images turned by their EXIF orientation, which is applied", MADE_FOR),
}  # fmt: skip

# why an entry of a folder is not used -> the kind of it
LEFT_OUT = {
    folders.HIDDEN: "system-file",
    folders.DEAD: "dead-link",
    folders.SPECIAL: "special-file",
    folders.NO_SUFFIX: "without-suffix",
    folders.SUFFIX: "other-suffix",
    folders.OUTSIDE: "outside-classes",
    folders.LINKED: "linked-folder",
    folders.CLOSED: "closed-folder",
    folders.BESIDE: "beside-parts",
    masks.ALONE: "mask-without-image",
    masks.NO_PNG: "mask-of-other-format",
    masks.BESIDE: "beside-parts",
}
