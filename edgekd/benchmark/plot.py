"""A plot of the samples of `edgekd bench`: over time, and their distribution."""

from collections.abc import Sequence
from html import escape
from io import StringIO
from pathlib import Path
from typing import Any

from edgekd.benchmark.files import BenchResult
from edgekd.errors import InputError
from edgekd.report.bars import time_bars
from edgekd.store import check_writable, write_beside

SUFFIXES = (".svg", ".html")
STYLE: Any = {
    "svg.fonttype": "none", "svg.hashsalt": "edgekd", "text.parse_math": False, "font.size": 9.5,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.4,
    "legend.frameon": False,
}  # fmt: skip


def check_plot(path: Path) -> None:
    """Refuse a file type that can't hold a plot and a folder that can't be written to, before
    anything is measured."""
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(
            f"'{path.suffix}' is not a supported plot format",
            where=f"--plot {path}",
            allowed=", ".join(SUFFIXES),
        )
    check_writable(path.parent)


def write_plot(results: Sequence[BenchResult], path: Path) -> None:
    """Draw the results that have samples, as SVG or as an HTML page with the SVG inside.

    The times of operators follow on the page, or lie in files beside the SVG."""
    check_plot(path)
    picture = draw(results)
    bars = [
        time_bars(result.path.name, result.layers, page=True)
        for result in results
        if result.layers is not None and result.layers.rows
    ]
    if path.suffix.lower() == ".html":
        title = escape(" and ".join(result.path.name for result in results))
        picture = (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f'<body style="max-width:60em;margin:auto">{picture[picture.index("<svg") :]}'
            f"{''.join(bars)}</body></html>\n"
        )
    write_beside(path, picture)
    for number, bar in enumerate(bars if path.suffix.lower() == ".svg" else (), 1):
        write_beside(path.with_name(f"{path.stem}-operators-{number}.svg"), bar)


def draw(results: Sequence[BenchResult]) -> str:
    """SVG: the median of each window over time, and the cumulative distribution of the runs."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        figure = Figure(figsize=(9, 3.8))
        FigureCanvasSVG(figure)
        over_time, spread = figure.subplots(1, 2)
        begin = min((one for result in results for one in result.window_starts_s), default=0.0)
        for result in results:
            _one(over_time, spread, result, begin)
        over_time.set_xlabel("time since the first window (s)")
        over_time.set_ylabel("median of a window (ms)")
        over_time.set_ylim(bottom=0)
        spread.set_xlabel(_axis(results))
        spread.set_ylabel("runs at or below this latency (%)")
        spread.set_ylim(0, 102)
        spread.legend(loc="lower right")
        figure.suptitle(results[0].device if results else "", fontsize=10)
        figure.tight_layout()
        stream = StringIO()
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def _one(over_time: Any, spread: Any, result: BenchResult, begin: float) -> None:
    first = next((row for row in result.measurements if row.samples), None)
    if first is None:
        return
    starts = [start - begin for start in result.window_starts_s]
    label = f"{result.path.name} (baseline)" if result.baseline else result.path.name
    over_time.plot(starts, result.window_medians_ms, ".-", linewidth=1, markersize=4)
    ordered = sorted(first.samples)
    shares = [100 * (rank + 1) / len(ordered) for rank in range(len(ordered))]
    spread.step(ordered, shares, where="post", linewidth=1.4, label=label)


def _axis(results: Sequence[BenchResult]) -> str:
    whole = any(row.metric.startswith("end_to_end") for one in results for row in one.measurements)
    return f"{'end-to-end ' if whole else ''}latency of one inference (ms)"
