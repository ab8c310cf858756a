"""Lines and bars as numbers of a small drawing, which the page's templates write as inline SVG."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

# small, so that the letters of a drawing are as large as those of the text around it, on a phone too
WIDTH, HEIGHT = 440, 264
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 14, 40
MOST_POINTS = 400  # of a line: a pixel of a wide screen each
TICKS = 5

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Line:
    """A line of a chart. kind: "train", "val" or "ideal", which the style knows; dots: places that are marked."""

    name: str
    kind: str
    path: str
    dots: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Chart:
    """A drawing of WIDTH x HEIGHT. Ticks are (place, text); mark is (x, y, text) of what stands out."""

    title: str
    says: str  # the same in words, for who cannot see it
    x_label: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    lines: tuple[Line, ...] = ()
    bars: tuple[tuple[float, float, float, float], ...] = ()  # x, y, width, height
    mark: tuple[float, float, str] | None = None
    box: tuple[int, int, int, int] = field(
        default=(LEFT, TOP, WIDTH - RIGHT, HEIGHT - BOTTOM), init=False
    )
    size: tuple[int, int] = field(default=(WIDTH, HEIGHT), init=False)


@dataclass(frozen=True)
class Scale:
    """Numbers between two bounds as places between two others."""

    low: float
    high: float
    start: int
    end: int

    def __call__(self, value: float) -> float:
        share = (value - self.low) / ((self.high - self.low) or 1)
        return round(self.start + share * (self.end - self.start), 2)


def x_scale(low: float, high: float) -> Scale:
    return Scale(low, high, LEFT, WIDTH - RIGHT)


def y_scale(low: float, high: float) -> Scale:
    # upwards, where a drawing's own numbers grow downwards
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def ticks(low: float, high: float, *, whole: bool = False) -> list[float]:
    """Round numbers that enclose a range. whole: without a half, as steps are."""
    from matplotlib.ticker import MaxNLocator

    steps = [1, 2, 5, 10] if whole else [1, 2, 2.5, 5, 10]
    found = MaxNLocator(TICKS, steps=steps, integer=whole).tick_values(low, high)
    return [float(value) for value in found]


def percent(value: float) -> str:
    return f"{100 * value:.3g}%"


def plain(value: float) -> str:
    return f"{value:,.6g}"


def line_chart(
    title: str,
    series: Sequence[tuple[str, str, Points]],
    *,
    x_label: str,
    share: bool = False,
    best: tuple[float, float] | None = None,
) -> Chart | None:
    """A chart of (name, kind, points) over a common axis; None where no series has a point.

    share: numbers are parts of one. best: the point that is marked.
    """
    series = [(name, kind, points) for name, kind, points in series if points]
    if not series:
        return None
    xs = [x for *_, points in series for x, _ in points]
    ys = [y for *_, points in series for _, y in points]
    shown: Callable[[float], str] = percent if share else plain
    # the steps from nought, as a run has them; the numbers as they are
    x_ticks, y_ticks = ticks(0.0, max(xs), whole=True), ticks(min(ys), max(ys))
    if share:
        # nobody reaches 110 %
        y_ticks = [tick for tick in y_ticks if -1e-9 <= tick <= 1 + 1e-9] or [0.0, 1.0]
    across = x_scale(0.0, max(xs))
    up = y_scale(min(y_ticks[0], *ys), max(y_ticks[-1], *ys))
    lines = tuple(_line(name, kind, thinned(points), across, up) for name, kind, points in series)
    mark = None
    if best is not None:
        mark = (across(best[0]), up(best[1]), f"best, step {best[0]:,.0f}: {shown(best[1])}")
    says = "; ".join(_in_words(name, points, shown) for name, _, points in series)
    return Chart(
        title,
        f"{title}. {says}.",
        x_label,
        tuple((across(tick), plain(tick)) for tick in x_ticks if 0 <= tick <= max(xs)),
        tuple((up(tick), shown(tick)) for tick in y_ticks),
        lines,
        mark=mark,
    )


def thinned(points: Points) -> Points:
    """At most MOST_POINTS of them, the first and the last among them."""
    if len(points) <= MOST_POINTS:
        return points
    places = np.linspace(0, len(points) - 1, MOST_POINTS).round().astype(int)
    return [points[place] for place in places]


def _line(name: str, kind: str, points: Points, across: Scale, up: Scale) -> Line:
    placed = [(across(x), up(y)) for x, y in points]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in placed)
    # of a line of one point nothing else would be seen; evaluations are few, and each is a measurement
    dots = tuple(placed) if len(placed) == 1 or (kind == "val" and len(placed) <= 60) else ()
    return Line(name, kind, path, dots)


def _in_words(name: str, points: Points, shown: Callable[[float], str]) -> str:
    (first, start), (last, end) = points[0], points[-1]
    if len(points) == 1:
        return f"{name}: {shown(start)} at step {first:,.0f}"
    return f"{name}: {shown(start)} at step {first:,.0f}, {shown(end)} at step {last:,.0f}"


def reliability_chart(confidence: np.ndarray, accuracy: np.ndarray, counts: np.ndarray) -> Chart:
    """Accuracy over confidence [bins], bars where a bin has examples, and the line of perfect calibration."""
    bins = len(counts)
    across, up = x_scale(0.0, 1.0), y_scale(0.0, 1.0)
    width = (across(1.0) - across(0.0)) / bins
    full = np.flatnonzero(counts)
    bars = tuple(
        (
            across(i / bins) + 1,
            up(float(accuracy[i])),
            round(width - 2, 2),
            round(up(0.0) - up(float(accuracy[i])), 2),
        )
        for i in full
    )
    ideal = Line(
        "perfect calibration", "ideal", f"M{across(0.0)} {up(0.0)}L{across(1.0)} {up(1.0)}"
    )
    found = [(float(confidence[i]), float(accuracy[i])) for i in full]
    # the mean confidence of a bin is where its accuracy should be
    line = _line("this model", "val", found, across, up)
    quarters = (0.0, 0.25, 0.5, 0.75, 1.0)
    words = ", ".join(f"{percent(a)} right at {percent(c)} confidence" for c, a in found)
    return Chart(
        "Accuracy by confidence",
        f"Accuracy by confidence: {words}.",
        "confidence",
        tuple((across(tick), percent(tick)) for tick in quarters),
        tuple((up(tick), percent(tick)) for tick in quarters),
        (ideal, line),
        bars,
    )


def histogram_chart(title: str, x_label: str, counts: np.ndarray) -> Chart:
    """How many of a set are in each of some bins between 0 and 1, as parts of it."""
    shares = counts / max(int(counts.sum()), 1)
    y_ticks = [tick for tick in ticks(0.0, float(shares.max())) if 0 <= tick <= 1]
    across, up = x_scale(0.0, 1.0), y_scale(0.0, max(y_ticks[-1], float(shares.max())))
    width = (across(1.0) - across(0.0)) / len(counts)
    # bins that are empty have no bar, and are not spoken of
    bars = tuple(
        (
            across(i / len(counts)) + 1,
            up(float(shares[i])),
            round(width - 2, 2),
            round(up(0.0) - up(float(shares[i])), 2),
        )
        for i in np.flatnonzero(counts)
    )
    words = ", ".join(
        f"{percent(float(shares[i]))} up to {percent((i + 1) / len(counts))}"
        for i in np.flatnonzero(counts)
    )
    return Chart(
        title,
        f"{title}: {words}.",
        x_label,
        tuple((across(tick), percent(tick)) for tick in (0.0, 0.25, 0.5, 0.75, 1.0)),
        tuple((up(tick), percent(tick)) for tick in y_ticks),
        bars=bars,
    )
