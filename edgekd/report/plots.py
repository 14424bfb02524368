"""Plots as inline SVG that follows the page's light or dark colours and is reproducible.

Matplotlib draws with placeholder colours, which become CSS variables. Text stays text. Metadata,
namespaces and the like are removed, so that the page contains no address at all.
"""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from html import escape
from typing import Any, ParamSpec

from edgekd.measure.parity import Histogram

P = ParamSpec("P")

INK, MUTED, GRID, SURFACE = "#010101", "#020202", "#030303", "#040404"
SERIES = ("#0a0101", "#0a0202", "#0a0303", "#0a0404", "#0a0505", "#0a0606")
VARIABLES: Mapping[str, str] = {
    INK: "--ink", MUTED: "--muted", GRID: "--line", SURFACE: "--surface",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, 1)},
}  # fmt: skip
Box = tuple[float, float, float, float]
SIZE = (5.2, 3.5)
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "edgekd", "text.parse_math": False,
    "axes.formatter.use_mathtext": False, "font.size": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.edgecolor": MUTED, "axes.labelcolor": MUTED,
    "xtick.color": MUTED, "ytick.color": MUTED, "text.color": INK, "axes.facecolor": "none",
    "figure.facecolor": "none", "savefig.facecolor": "none", "grid.color": GRID,
    "axes.grid": True, "axes.axisbelow": True, "grid.linewidth": 0.7, "axes.linewidth": 0.7,
    "xtick.major.width": 0.7, "ytick.major.width": 0.7, "xtick.minor.width": 0.5,
    "legend.frameon": False, "legend.fontsize": 9,
}  # fmt: skip


@dataclass(frozen=True)
class Point:
    """One model in a scatter plot. `series` selects the colour, from 1; 0 is the teacher and -1 a
    stage. `error` is the interval of y."""

    x: float
    y: float
    label: str
    series: int
    marker: str = "o"
    error: tuple[float, float] | None = None


@dataclass(frozen=True)
class Curve:
    """The samples of one artifact's latency."""

    label: str
    samples: tuple[float, ...] = field(repr=False)
    series: int


def colour(series: int) -> str:
    """The placeholder colour of a series; colours repeat after six."""
    return {0: INK, -1: MUTED}.get(series) or SERIES[(series - 1) % len(SERIES)]


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    """Draw in this page's style, whatever the user's own matplotlib settings."""

    @wraps(draw)
    def drawn(*arguments: P.args, **options: P.kwargs) -> str:
        import matplotlib

        with matplotlib.rc_context():
            matplotlib.rcdefaults()
            matplotlib.rcParams.update(STYLE)
            return draw(*arguments, **options)

    return drawn


@_styled
def scatter(
    points: Sequence[Point],
    legend: Mapping[str, int],
    axis: str,
    name: str,
    title: str,
    fronts: Sequence[Sequence[tuple[float, float]]] = (),
) -> str:
    """Accuracy in percent against a cost on a logarithmic axis. `name` prefixes the ids, and
    `fronts` are lines through (cost, accuracy)."""
    figure, axes = _figure()
    for front in fronts:
        costs, shares = [one[0] for one in front], [100 * one[1] for one in front]
        axes.plot(costs, shares, color=MUTED, linewidth=1, linestyle=":", zorder=1)
    for point in points:
        tint = colour(point.series)
        if point.error:
            ends = [100 * end for end in point.error]
            axes.plot([point.x] * 2, ends, color=tint, linewidth=1, alpha=0.55, zorder=2)
        axes.plot(
            point.x, 100 * point.y, marker=point.marker, color=tint, markersize=7,
            markerfacecolor=SURFACE if point.series <= 0 else tint, markeredgewidth=1.4,
            linestyle="none", zorder=3,
        )  # fmt: skip
    axes.set_xscale("log")
    _plain_log_ticks(axes.xaxis)
    axes.margins(x=0.16, y=0.16)
    axes.set_xlabel(axis)
    axes.set_ylabel("test accuracy (%)")
    axes.set_ylim(top=min(axes.get_ylim()[1], 101.5))
    _legend(figure, axes, legend)
    _label(axes, points)
    return _svg(figure, name, title)


@_styled
def parity_histogram(histogram: Histogram, tolerance: float, name: str, title: str) -> str:
    """The share of outputs by difference from the reference, on a logarithmic axis, with
    differences beyond the tolerance in another colour."""
    figure, axes = _figure((5.2, 2.5))
    total = sum(histogram.counts) or 1
    last = max((i for i, count in enumerate(histogram.counts) if count), default=0)
    shown = max(last, 3) + 1
    heights = [100 * count / total for count in histogram.counts[:shown]]
    # A difference equal to the tolerance passes, and a bin includes its lower edge.
    tints = [SERIES[0] if edge <= tolerance else SERIES[1] for edge in histogram.edges[:shown]]
    axes.bar(range(shown), heights, color=tints, width=0.72)
    axes.set_yscale("log")
    axes.minorticks_off()
    smallest = min((height for height in heights if height > 0), default=1.0)
    axes.set_ylim(smallest / 3, 300)
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes.grid(axis="x", visible=False)
    axes.set_xticks(range(shown), _bin_names(histogram)[:shown], fontsize=9.5 if shown < 11 else 8)
    lsb = histogram.unit == "lsb"
    axes.set_xlabel("difference (LSB)" if lsb else "difference, relative to the largest output")
    axes.set_ylabel("outputs (%)")
    return _svg(figure, name, title)


def _bin_names(histogram: Histogram) -> list[str]:
    edges = histogram.edges
    if histogram.unit == "relative":
        return [f"<{edge:.0e}".replace("e-0", "e-") for edge in edges[1:]] + [f"≥{edges[-1]:g}"]
    pairs = zip(edges, (*edges[1:], float("inf")), strict=True)
    return [f"{low:g}" if high - low <= 1 else f"{low:g}+" for low, high in pairs]


@_styled
def latency_curves(curves: Sequence[Curve], name: str, title: str) -> str:
    """The cumulative distribution of each artifact's latency."""
    figure, axes = _figure()
    for curve in curves:
        ordered = sorted(curve.samples)
        shares = [100 * (rank + 1) / len(ordered) for rank in range(len(ordered))]
        dashed = "--" if curve.series == 0 else "-"
        axes.step(
            ordered, shares, where="post", color=colour(curve.series), linewidth=1.6,
            label=curve.label, linestyle=dashed,
        )  # fmt: skip
    axes.set_xscale("log")
    _plain_log_ticks(axes.xaxis)
    axes.set_ylim(0, 102)
    axes.set_yticks([0, 25, 50, 75, 90, 100])
    axes.set_xlabel("latency of one inference (ms)")
    axes.set_ylabel("runs at or below this latency (%)")
    _place_legend(figure, axes, len(curves), 3, handlelength=1.4)
    return _svg(figure, name, title)


@_styled
def lines(
    curves: Sequence[tuple[str, Sequence[float], Sequence[float]]],
    across: str,
    up: str,
    name: str,
    title: str,
    diagonal: bool = False,
) -> str:
    """Curves (label, x, y) with their points marked, the teacher's dashed; `diagonal` draws the
    line where y equals x."""
    figure, axes = _figure((5.2, 2.9))
    if diagonal:
        axes.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=":")
    for number, (label, x, y) in enumerate(curves, 1):
        teacher = label == "teacher"
        axes.plot(
            x, y, color=colour(0 if teacher else number), linewidth=1.6, marker="o", markersize=4,
            linestyle="--" if teacher else "-", label=label,
        )  # fmt: skip
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    _place_legend(figure, axes, len(curves), 3, handlelength=1.4)
    return _svg(figure, name, title)


def _figure(size: tuple[float, float] = SIZE) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, dpi=72)  # SVG has 72 units an inch: labels are placed in these
    FigureCanvasSVG(figure)
    # Fixed margins: searching for the best ones takes longer than drawing.
    inch = 1 / size[1]
    figure.subplots_adjust(left=0.14, right=0.98, bottom=0.52 * inch, top=1 - 0.08 * inch)
    return figure, figure.add_subplot()


def _place_legend(figure: Any, axes: Any, count: int, columns: int, **options: Any) -> None:
    """The legend above the plot, which shrinks to make room for its rows."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure.subplots_adjust(top=1 - (0.14 + 0.2 * rows) / figure.get_figheight())
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=columns, **options)


def _plain_log_ticks(axis: Any) -> None:
    """Plain tick labels: 0.1, 0.2, 0.5, 1, and between the decades too if there are few."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    low, high = axis.axes.get_xlim()
    wide = low > 0 and high / low > 300
    axis.set_major_locator(LogLocator(subs=(1.0,) if wide else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axis.set_minor_locator(NullLocator())


def _label(axes: Any, points: Sequence[Point]) -> None:
    """A label beside each point, placed so that it covers no other label or point."""
    axes.get_xlim(), axes.get_ylim()  # fixes the axis limits, and so the positions of the points
    spots = [axes.transData.transform((point.x, 100 * point.y)) for point in points]
    frame = axes.get_window_extent()
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in spots]
    places = []
    for point, (x, y) in zip(points, spots, strict=True):
        ends: tuple[tuple[float, float, str], ...] = ()
        if point.error:
            low, high = (axes.transData.transform((point.x, 100 * y))[1] for y in point.error)
            taken.append((x - 1, low, x + 1, high))
            ends = ((0, high - y + 4, "center"), (0, low - y - 13, "center"))
        places.append((*_PLACES, *ends))
    for point, (x, y), around in zip(points, spots, places, strict=True):
        width, height = 4.9 * len(point.label) + 2, 10
        for dx, dy, anchor in around:
            left = x + dx - {"left": 0, "center": width / 2, "right": width}[anchor]
            box = (left, y + dy - 1, left + width, y + dy + height)
            inside = frame.x0 <= box[0] and box[2] <= frame.x1 and frame.y0 <= box[1]
            if inside and box[3] <= frame.y1 + 6 and not any(_overlap(box, one) for one in taken):
                taken.append(box)
                axes.annotate(
                    point.label, (point.x, 100 * point.y), (dx, dy), fontsize=8.5, ha=anchor,
                    textcoords="offset pixels", color=colour(point.series),
                    parse_math=False,
                )  # fmt: skip
                break


_PLACES = (
    (9, -4, "left"), (-9, -4, "right"), (0, 9, "center"), (0, -19, "center"), (8, 7, "left"),
    (-8, 7, "right"), (8, -16, "left"), (-8, -16, "right"), (0, 20, "center"), (0, -30, "center"),
)  # fmt: skip


def _overlap(first: Box, second: Box) -> bool:
    apart = first[2] < second[0] or second[2] < first[0]
    return not (apart or first[3] < second[1] or second[3] < first[1])


def _legend(figure: Any, axes: Any, legend: Mapping[str, int]) -> None:
    for label, series in legend.items():
        axes.plot(
            [], [], marker="D" if series < 0 else "o", linestyle="none", color=colour(series),
            label=label, markersize=5 if series < 0 else 6,
            markerfacecolor=SURFACE if series <= 0 else colour(series),
        )  # fmt: skip
    _place_legend(figure, axes, len(legend), 4, handletextpad=0.1, columnspacing=1.0)


def _svg(figure: Any, name: str, title: str) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return _inlined(stream.getvalue(), name, title)


def _inlined(text: str, name: str, title: str) -> str:
    """The `svg` element alone, with ids of its own, the page's colours and font, and a title."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    text = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', text)
    text = text.replace('xlink:href="#', f'href="#{name}-').replace("url(#", f"url(#{name}-")
    for placeholder, variable in VARIABLES.items():
        text = text.replace(placeholder, f"var({variable})")
    text = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", text)
    text = re.sub(r"<svg ([^>]*)>", lambda found: _opening(found[1], title), text, count=1)
    return text.strip()


def _opening(attributes: str, title: str) -> str:
    attributes = re.sub(r'\b(?:width|height)="[^"]*"\s*', "", attributes)
    label = escape(title, quote=True)
    return f'<svg role="img" aria-label="{label}" {attributes}><title>{label}</title>'
