"""Line charts as SVG text, for pages that load nothing."""

from collections.abc import Sequence
from html import escape
from math import ceil, floor, log10
from typing import NamedTuple

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 44, 10, 28, 44
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#7b4fa3")  # Okabe and Ito's
MARKED = 20  # points at most of lines whose points are drawn
GREYS = ("#555555", "#888888", "#aaaaaa", "#333333")


class Line(NamedTuple):
    """One line of a chart.

    Args:
        label: of it.
        points: (x, y), from left to right.
        aside: whether it is there for comparison: grey and dashed.
    """

    label: str
    points: Sequence[tuple[float, float]]
    aside: bool = False


def colours(lines: Sequence[Line]) -> list[str]:
    """Of each line; the same for the same lines in every chart."""
    own = [line.label for line in lines if not line.aside]
    other = [line.label for line in lines if line.aside]
    return [
        GREYS[other.index(line.label) % len(GREYS)] if line.aside else COLOURS[own.index(line.label) % len(COLOURS)]
        for line in lines
    ]


def chart(lines: Sequence[Line], x_label: str, y_label: str, log_y: bool = False) -> str:
    """The lines over a logarithmic axis, points with their numbers as tooltips."""
    points = [point for line in lines for point in line.points]
    across = Scale([x for x, _ in points], LEFT, WIDTH - RIGHT, log=True)
    up = Scale([y for _, y in points], HEIGHT - BOTTOM, TOP, log=log_y)
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_label)} over {escape(x_label)}">']
    for value in across.ticks():
        x = across.place(value)
        parts.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        parts.append(f'<text x="{x:.1f}" y="{HEIGHT - BOTTOM + 15}" text-anchor="middle">{value:g}</text>')
    for value in up.ticks():
        y = up.place(value)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    centre = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text x="{centre}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>')
    parts.append(f'<text class="title" x="{LEFT}" y="14">{escape(y_label)}</text>')
    for line, colour in zip(lines, colours(lines), strict=True):
        dashed = ' stroke-dasharray="5 4"' if line.aside else ""
        places = [(across.place(x), up.place(y)) for x, y in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.8"{dashed}/>')
        marked = zip(places, line.points, strict=True) if len(places) <= MARKED else ()
        for (x, y), (a, b) in marked:
            tip = f"<title>{escape(line.label)}: {b:.4g} at {a:.4g}</title>"
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}">{tip}</circle>')
    return "".join([*parts, "</svg>"])


def legend(lines: Sequence[Line]) -> str:
    """What the colours of a chart mean."""
    keys = []
    for line, colour in zip(lines, colours(lines), strict=True):
        style = "dashed" if line.aside else "solid"
        keys.append(f'<span><i style="border-top: 3px {style} {colour}"></i>{escape(line.label)}</span>')
    return f'<p class="legend">{"".join(keys)}</p>'


class Scale:
    """Values to places along an axis.

    Args:
        values: all of them; above 0 where `log`.
        first, last: places of the least and the largest, pixels.
        log: whether equal ratios, not differences, are equally far apart.
    """

    def __init__(self, values: Sequence[float], first: float, last: float, log: bool) -> None:
        self.log, self.first, self.last = log, first, last
        low, high = min(values, default=1.0), max(values, default=1.0)
        margin = 0.0 if log else 0.04 * (high - low)
        self.low, self.high = self._number(low - margin), self._number(high + margin)
        if self.high - self.low < 1e-9:
            self.low, self.high = self.low - 0.5, self.high + 0.5

    def _number(self, value: float) -> float:
        return log10(max(value, 1e-12)) if self.log else value

    def place(self, value: float) -> float:
        """Of a value."""
        return self.first + (self._number(value) - self.low) / (self.high - self.low) * (self.last - self.first)

    def ticks(self) -> list[float]:
        """Round values within the axis."""
        if self.log:
            decades = range(floor(self.low), ceil(self.high) + 1)
            steps = (1, 2, 5) if self.high - self.low < 3 else (1,)
            values = [step * 10.0**d for d in decades for step in steps]
            return [value for value in values if self.low - 1e-9 <= log10(value) <= self.high + 1e-9]
        span = self.high - self.low
        unit = 10.0 ** floor(log10(span / 4))
        step = next(unit * m for m in (1, 2, 5, 10) if span / (unit * m) <= 6)
        return [round(i * step, 10) for i in range(ceil(self.low / step), floor(self.high / step) + 1)]
