"""The terminal: what is printed on it can move no cursor, and long work shows how far it is."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column as RichColumn
from rich.table import Table
from rich.text import Text

from fmjax.errors import safe

T = TypeVar("T")
EVERY_S = 10.0  # between two lines of long work where there is no terminal
# letters of a terminal from which on a bar has room for itself and two clocks, and for a speed
WIDE, NARROW = 72, 50
GAP = 2  # letters between two columns
PAGE_NAMES = 14  # letters for the names of a page


class SafeConsole(Console):
    """rich's console, through which every text goes safe."""

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*map(_printable, objects), **options)


def _printable(shown: Any) -> Any:
    """A text made safe; rich's own tables and bars as they are."""
    return safe(shown) if isinstance(shown, str) else shown


# paths are printed as they are: no markup, no emoji, no folding at the width of the terminal
console = SafeConsole(highlight=False, soft_wrap=True, markup=False, emoji=False)


@dataclass(frozen=True)
class Column:
    """What stands below one title of a table."""

    title: str
    cells: Sequence[str]
    rank: int = 0  # where a terminal is narrow the highest goes first; 0 stays
    right: bool = False  # numbers end below each other
    style: str = ""
    styles: Mapping[str, str] = field(default_factory=dict)  # of cells that say this

    @property
    def width(self) -> int:
        """The letters of its longest cell."""
        return max(map(cell_len, map(safe, (self.title, *self.cells))))


def show_table(columns: Sequence[Column]) -> None:
    """Prints columns side by side: on a terminal as many as fit it, all of them into a pipe, where lines are read by
    programs."""
    kept = list(columns)
    if console.is_terminal:
        kept = fitting(columns, console.width)
    table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
    for column in kept:
        justify = "right" if column.right else "left"
        table.add_column(safe(column.title), justify=justify, style=column.style, no_wrap=True)
    for row in zip(*(_cells(column) for column in kept), strict=True):
        table.add_row(*row)
    _whole(kept).print(table, soft_wrap=False, crop=False)


def fitting(columns: Sequence[Column], width: int) -> list[Column]:
    """The columns that fit side by side into so many letters: those of the highest rank have gone first."""
    kept = list(columns)
    # the first always stays: a table without names says nothing
    while len(kept) > 1 and _together(kept) > width:
        last = max(kept[1:], key=lambda column: column.rank)
        if last.rank == 0:
            break
        kept.remove(last)
    return kept


def _together(columns: Sequence[Column]) -> int:
    return sum(column.width + GAP for column in columns)


def _cells(column: Column) -> list[Text]:
    return [Text(safe(cell), style=column.styles.get(cell, "")) for cell in column.cells]


def _whole(columns: Sequence[Column]) -> Console:
    """The console itself, or one beside it as wide as the table: rich takes a pipe for 80 letters."""
    if console.is_terminal:
        return console
    return SafeConsole(file=console.file, width=_together(columns), markup=False, emoji=False)


def show_page(title: str, rows: Iterable[tuple[str, str]]) -> None:
    """Prints a title and below it (name, text): on a terminal long texts go on below their beginning, in a pipe each is
    one line."""
    console.print(Text(safe(title), style="bold"))
    for name, text in rows:
        grid = Table.grid(padding=(0, GAP, 0, 0), pad_edge=False)
        grid.add_column(width=PAGE_NAMES, style="cyan", no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_row(Text(safe(f"  {name}")), Text(safe(text)))
        if console.is_terminal:
            console.print(grid, soft_wrap=False)
        else:
            console.print(f"  {name:<{PAGE_NAMES}}{text}")


class CellLine:
    """A line below a notebook's cell that is written over, and stays when the work is done."""

    handle: Any = None

    def __enter__(self) -> CellLine:
        return self

    def __exit__(self, *raised: Any) -> None:
        return None

    def update(self, line: Text | str) -> None:
        """Shows the line in the place of the one before it."""
        # of several processes the first one speaks
        if console.quiet:
            return
        # there wherever a notebook is
        from IPython.display import display

        shown = {"text/plain": safe(str(line))}
        if self.handle is None:
            self.handle = display(shown, raw=True, display_id=True)
        else:
            self.handle.update(shown, raw=True)


def in_place() -> Live | CellLine | None:
    """A line that is written over, on a terminal and in a notebook; None in a file or a pipe, where all lines stay."""
    if console.is_terminal:
        return Live(console=console, refresh_per_second=4)
    return CellLine() if console.is_jupyter else None


def counted(batches: Iterable[tuple[int, T]], total: int, what: str) -> Iterator[T]:
    """The batches of (how many, batch), while a bar with speed and time to go is shown on a terminal, and a line every
    ten seconds elsewhere."""
    # a batch counts when it comes back for the next one: then its work is done
    start = last = time.monotonic()
    tell = CellLine().update if console.is_jupyter else console.print
    done = 0
    with Progress(
        *_bar(console.width), console=console, transient=True, disable=not console.is_terminal
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
                tell(f"{what} {done:,} of {total:,}, {rate:.1f}/s, {left} to go")


def _bar(width: int) -> list[ProgressColumn]:
    """What a bar shows on a line of so many letters, which stays one line."""
    done = "{task.completed:,.0f} of {task.total:,.0f}"
    columns = (
        (0, TextColumn("{task.description}")),
        (WIDE, BarColumn()),
        (0, TextColumn(done)),
        (NARROW, TextColumn("{task.fields[rate]:.1f}/s")),
        (WIDE, TimeElapsedColumn(table_column=RichColumn(no_wrap=True))),
        (0, TimeRemainingColumn(table_column=RichColumn(no_wrap=True))),
    )
    return [column for least, column in columns if width >= least]


def clock(seconds: float) -> str:
    """Hours, minutes and seconds: 1:02:03."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
