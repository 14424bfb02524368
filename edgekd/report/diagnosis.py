"""A diagnosis as text and as a picture."""

from edgekd.measure.diagnosis import Diagnosis, LayerDiagnosis
from edgekd.measure.diagnosis.repair import SPREAD
from edgekd.report.bars import MOST, Cell, Line, bar_table

SHOWN = 12


def diagnosis_lines(diagnosis: Diagnosis, most: int = SHOWN) -> list[str]:
    """The worst layers as a table, then the cause and the repairs of each."""
    ranked = diagnosis.layers[:most]
    head = ("layer", "operator", "of the error", "alone", "own output", "weights", "grid",
            "saturated", diagnosis.unit or "time")  # fmt: skip
    table: list[tuple[str, ...]] = [head]
    table += [_row(row) for row in ranked]
    widths = [max(len(row[n]) for row in table) for n in range(len(table[0]))]
    lines = [
        "  ".join(cell.ljust(width) if n < 2 else cell.rjust(width)
                  for n, (cell, width) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in table
    ]  # fmt: skip
    left = len(diagnosis.layers) - len(ranked)
    title = (f"{diagnosis.file} against {diagnosis.reference}, {diagnosis.samples} samples: final "
            f"output {diagnosis.final_sqnr:.1f} dB")  # fmt: skip
    more = [f"and {left} layers with less of the error"] if left else []
    notes = [f"note: {note}" for note in diagnosis.notes]
    return [title, *lines, *more, *_advice(ranked), *notes]


def _row(row: LayerDiagnosis) -> tuple[str, ...]:
    return (
        row.layer, row.operator, _percent(row.error_share), _decibels(row.alone_sqnr),
        _decibels(row.output_sqnr), _decibels(row.weight_sqnr), _decibels(row.grid_sqnr),
        _percent(row.saturated), "-" if row.cost is None else f"{row.cost:,.4g}",
    )  # fmt: skip


def _advice(rows: tuple[LayerDiagnosis, ...]) -> list[str]:
    lines = []
    for row in rows:
        if not row.causes and (not row.repairs or (row.error_share or 0.0) < SPREAD):
            continue
        lines.append(f"{row.layer}: {'; '.join(row.causes) or 'rounding'}")
        for repair in row.repairs:
            parts = [part for part in (repair.gain, repair.cost) if part]
            lines.append(f"  -> {repair.what}" + (f" ({'; '.join(parts)})" if parts else ""))
            if repair.recipe:
                lines.append(f"     in the quantize stage: {repair.recipe}")
    return ["", *lines] if lines else []


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _decibels(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} dB"


WORST_DB, BEST_DB = 0.0, 50.0


def diagnosis_picture(diagnosis: Diagnosis, *, page: bool) -> str:
    """The worst layers as SVG: share of the error, error of weights and grid, time, and what would
    help."""
    rows = diagnosis.layers[: min(MOST, 30)]
    largest = max((row.error_share or 0.0 for row in rows), default=0.0) or 1.0
    costs = max((row.cost_share or 0.0 for row in rows), default=0.0) or 1.0
    lines = [
        Line((
            Cell(row.layer),
            Cell(_percent(row.error_share),
                 None if row.error_share is None else row.error_share / largest, "error"),
            Cell(_decibels(row.weight_sqnr), _scaled(row.weight_sqnr), "good"),
            Cell(_decibels(row.grid_sqnr), _scaled(row.grid_sqnr), "good"),
            Cell("-" if row.cost is None else f"{row.cost:,.3g} {diagnosis.unit}",
                 None if row.cost_share is None else row.cost_share / costs, "time"),
            Cell((row.causes or ("",))[0][:60]),
        ))
        for row in rows
    ]  # fmt: skip
    title = (f"{diagnosis.file}: final output {diagnosis.final_sqnr:.1f} dB from "
             f"{diagnosis.reference}")  # fmt: skip
    headers = ("layer", "share of the final error", "weights", "output grid", "time", "cause")
    left = len(diagnosis.layers) - len(rows)
    caption = f"signal to noise in dB (longer is better), {diagnosis.samples} samples" + (
        f"; {left} further layers are not shown" if left else ""
    )
    return bar_table(title, headers, lines, caption, page=page)


def _scaled(value: float | None) -> float | None:
    if value is None:
        return None
    return max(0.0, min(1.0, (value - WORST_DB) / (BEST_DB - WORST_DB)))
