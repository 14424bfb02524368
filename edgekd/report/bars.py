"""A table of layers with bars in its cells, as SVG: what a page shows and a ticket takes."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from edgekd.measure.layer_times import LayerTimes

ROW, HEAD, CHARACTER, SPACE = 19, 46, 6.6, 14
BAR = 150
TONES = {"time": "#4c78a8", "error": "#d1495b", "good": "#59a14f", "plain": "#8c8c8c"}
MOST = 80
"""More rows than this are left out, the least important ones first."""


@dataclass(frozen=True)
class Cell:
    """A bar from 0 to 1 with its text, or text alone where there is no bar."""

    text: str
    share: float | None = None
    tone: str = "plain"


@dataclass(frozen=True)
class Line:
    """One layer: its cells, in the order of the headers."""

    cells: tuple[Cell, ...]


def bar_table(
    title: str, headers: Sequence[str], lines: Sequence[Line], caption: str = "", *, page: bool
) -> str:
    """The table as SVG. On a `page` it takes the page's colours; a file of its own is white."""
    widths = [_width(headers[n], [line.cells[n] for line in lines]) for n in range(len(headers))]
    starts = [SPACE + sum(widths[:n]) for n in range(len(headers))]
    across, down = starts[-1] + widths[-1], HEAD + ROW * len(lines) + (26 if caption else 10)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:.0f} {down}" role="img" '
        f'aria-label="{escape(title)}" font-family="system-ui, sans-serif" font-size="11.5" '
        f'fill="{"currentColor" if page else "#1b1b1b"}"'
        + (
            f' style="max-width:{across:.0f}px"'
            if page
            else f' width="{across:.0f}" height="{down}"'
        )
        + ">"
    ]
    if not page:
        parts.append(f'<rect width="{across:.0f}" height="{down}" fill="white"/>')
    parts.append(_text(SPACE, 16, title, "font-weight='600' font-size='13'"))
    parts += [
        _text(start, 36, header, "opacity='.7'")
        for start, header in zip(starts, headers, strict=True)
    ]
    for number, line in enumerate(lines):
        y = HEAD + ROW * number
        for start, cell in zip(starts, line.cells, strict=True):
            parts += _cell(start, y, cell)
    if caption:
        parts.append(_text(SPACE, down - 8, caption, "opacity='.7'"))
    return "\n".join([*parts, "</svg>"]) + "\n"


def _width(header: str, cells: Sequence[Cell]) -> float:
    longest = max([len(header), *(len(cell.text) for cell in cells)])
    drawn = BAR + 6 if any(cell.share is not None for cell in cells) else 0
    return drawn + longest * CHARACTER + SPACE


def _cell(x: float, y: float, cell: Cell) -> list[str]:
    if cell.share is None:
        return [_text(x, y + 13, cell.text)]
    width = max(0.0, min(1.0, cell.share)) * BAR
    colour = TONES[cell.tone]
    bar = f'<rect x="{x:.1f}" y="{y + 3}" width="{width:.1f}" height="13" rx="2" fill="{colour}"/>'
    return [bar, _text(x + BAR + 6, y + 13, cell.text)]


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y}" {style}>{escape(words)}</text>'


def time_bars(name: str, times: LayerTimes, *, page: bool) -> str:
    """The operators of a file in order of execution, with a bar for each share."""
    rows = times.rows
    if len(rows) > MOST:
        least = sorted((row.share for row in rows), reverse=True)[MOST - 1]
        rows = tuple(row for row in rows if row.share >= least)[:MOST]
    largest = max((row.share for row in rows), default=0.0) or 1.0
    lines = [
        Line((
            Cell(row.layer or "-"),
            Cell(row.operator),
            Cell(f"{cost_text(row.value, times.unit)}  {100 * row.share:.1f} %",
                 row.share / largest, "time"),
        ))
        for row in rows
    ]  # fmt: skip
    total = f"{cost_text(times.total, times.unit)} in all, {times.kind}"
    left = len(times.rows) - len(rows)
    caption = f"{left} operators with smaller shares are not shown" if left else ""
    title = f"{name}: {total}"
    return bar_table(title, ("layer", "operator", "share"), lines, caption, page=page)


def cost_text(value: float, unit: str) -> str:
    """A cost with its unit: 12.3 us, 162,623 instructions."""
    return f"{value:,.4g} us" if unit == "us" else f"{value:,.0f} instructions"
