"""The terminal: what is printed on it can move no cursor, and long work shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from fmjax.errors import safe

T = TypeVar("T")
EVERY_S = 10.0  # between two lines of long work where there is no terminal


class SafeConsole(Console):
    """rich's console, through which every text goes safe."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_printable, objects), **options)


def _printable(shown: Any) -> Any:
    """A text made safe; rich's own tables and bars as they are."""
    return safe(shown) if isinstance(shown, str) else shown


# paths are printed as they are: no markup, no emoji, no folding at the width of the terminal
console = SafeConsole(highlight=False, soft_wrap=True, markup=False, emoji=False)


def counted(batches: Iterable[tuple[int, T]], total: int, what: str) -> Iterator[T]:
    """The batches of (how many, batch), while a bar with speed and time to go is shown on a terminal, and a line every
    ten seconds elsewhere."""
    # a batch counts when it comes back for the next one: then its work is done
    start = last = time.monotonic()
    done = 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}, {task.fields[rate]:.1f}/s"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task(what, total=total, rate=0.0)
        for count, batch in batches:
            yield batch
            done, now = done + count, time.monotonic()
            rate = done / max(now - start, 1e-9)
            progress.update(task, completed=done, rate=rate)
            if not console.is_terminal and now - last >= EVERY_S and done < total:
                last = now
                left = clock((total - done) / rate)
                console.print(f"{what} {done:,} of {total:,}, {rate:.1f}/s, {left} to go")


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
