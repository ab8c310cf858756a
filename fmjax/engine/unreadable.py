"""The unreadable images of a set, where each process reads a part of it: all count the same ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

from fmjax.data.batches import BadImages, Batch, unreadable
from fmjax.engine import hosts

Tell = Callable[[str], None]


class SharedBadImages(BadImages):
    """Counts what this process finds at once, where it is alone; what all have found, where they meet in `meet`."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self.found: dict[int, str] = {}  # since they met

    def name(self, batch: Batch, tell: Tell) -> None:
        if jax.process_count() == 1:
            super().name(batch, tell)
            return
        self.found |= unreadable(batch)
        # far too many here are too many anyway: that the others hear of it is not waited for
        if len(self.indices | set(self.found)) > self.limit:
            self.count(self.found)

    def meet(self, tell: Tell) -> None:
        """All processes must call it, at the same place: counts the unreadable images of each, and tells the new
        ones."""
        if jax.process_count() == 1:
            return
        parts = hosts.exchanged(list(self.found.items()))
        self.found = {}
        for told in self.count({index: reason for part in parts for index, reason in part}):
            tell(f"unreadable image left out: {told}")
