"""The largest batch that fits a card, by the search and the limit of `--batch auto`."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.memory.cases import BATCHES, CARDS, SHARE
from fmjax.engine.costs import Memory
from fmjax.engine.fitting import GIB, first_fitting, usable

Takes = Callable[[int], Memory]  # a batch -> what its step takes


def allotted(card: str) -> float:
    """GiB that programs may have of a card: what `--memory-gib` is to be."""
    return SHARE * CARDS[card]


def limit(card: str) -> int:
    """Bytes that a step may take of a card."""
    return usable(round(allotted(card) * GIB))


def largest(takes: Takes, most: int) -> int | None:
    """The most images of a step that takes at most so many bytes; None where one image takes more."""
    return first_fitting(BATCHES, takes, most)


def on_cards(takes: Takes) -> dict[str, int | None]:
    """Card -> the most images of a step that fits it."""
    return {card: largest(takes, limit(card)) for card in CARDS}
