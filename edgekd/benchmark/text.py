"""The results of `edgekd bench` as text."""

from collections.abc import Sequence

from edgekd.benchmark.files import BenchResult
from edgekd.benchmark.throughput import Throughput
from edgekd.report.numbers import metric_text
from edgekd.values.measurement import Judgement, Measurement

STATIC = {
    "size_bytes": "flash",
    "planned_memory_bytes": "planned memory",
    "micro_arena_bytes": "the micro runtime's arena",
    "on_chip_bytes": "cached on the chip",
    "off_chip_bytes": "streamed to it",
    "energy_estimate_mj": "energy",
}
"""Results that need no run, with their labels in the second part of the table."""


def bench_lines(results: Sequence[BenchResult]) -> list[str]:
    """The results as a text table, followed by the reasons for missing values."""
    head = ("file", "p50 ms", "p90 ms", "p99 ms", "cold ms", "peak MB", "energy mJ", "faster")
    columns = ("latency_ms_p50", "latency_ms_p90", "latency_ms_p99", "cold_start_ms",
               "peak_memory_bytes", "energy_mj")  # fmt: skip
    rows: list[Sequence[str]] = [head]
    for result in results:
        measured = {_column(one): one for one in result.measurements}
        cells = [_cell(measured[name]) for name in columns]
        rows.append((result.path.name, *cells, _ratio_cell(result)))
    widths = [max(len(row[column]) for row in rows) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in rows]
    notes = [f"note: {result.path.name}: {note}" for result in results for note in result.notes]
    judged = [
        f"budget: {result.path.name}: {_judgement(one)}"
        for result in results
        for one in result.budgets
    ]
    static = [line for result in results for line in (*_tensors(result), _static(result))]
    layers = [line for result in results for line in _layers(result)]
    lines += [*_taken(results), *static, *_missing(results, columns), *notes, *judged]
    rates = [line for result in results for line in _rates(result)]
    return [*lines, *rates, *layers]


def _rates(result: BenchResult) -> list[str]:
    """A table of the file's throughput by batch and streams."""
    rows = result.throughput
    if not rows:
        return []
    head = ("batch", "streams", "threads", "samples/s", "95 % interval", "ms a batch")
    table = [head, *map(_rate_cells, rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(head))]
    lines = ["  ".join(cell.rjust(w) for cell, w in zip(row, widths, strict=True)) for row in table]
    kinds = ", ".join(dict.fromkeys(row.samples_per_second.kind for row in rows))
    missing = dict.fromkeys(row.samples_per_second.reason for row in rows)
    reasons = [f"no throughput: {reason}" for reason in missing if reason]
    return ["", f"{result.path.name}: throughput ({kinds})", *lines, *reasons]


def _rate_cells(row: Throughput) -> tuple[str, ...]:
    found = row.samples_per_second
    ends = [f"{end:,.5g}" for end in found.ci or ()]
    return (
        str(row.batch),
        str(row.streams),
        str(row.threads),
        "-" if found.value is None else f"{found.value:,.5g}",
        f"{ends[0]} to {ends[1]}" if ends else "-",
        "-" if row.batch_ms is None else f"{row.batch_ms:.4g}",
    )


BAR = 24
"""The characters of the largest share's bar."""


def _layers(result: BenchResult) -> list[str]:
    """A table of the file's operators in order of execution, with a bar for each share."""
    times, name = result.layers, result.path.name
    if times is None:
        return []
    if not times.rows:
        return ["", f"{name}: no times of operators: {times.reason}"]
    largest = max(row.share for row in times.rows) or 1.0
    table = [("layer", "operator", times.unit, "share", "")]
    table += [
        (row.layer or "-", row.operator, f"{row.value:,.4g}" if times.unit == "us"
         else f"{row.value:,.0f}", f"{100 * row.share:.1f} %",
         "#" * round(BAR * row.share / largest))
        for row in times.rows
    ]  # fmt: skip
    widths = [max(len(row[column]) for row in table) for column in range(4)]
    lines = [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  {row[2]:>{widths[2]}}  {row[3]:>{widths[3]}}"
        f"  {row[4]}".rstrip()
        for row in table
    ]
    total = f"{times.total:,.4g} us" if times.unit == "us" else f"{times.total:,.0f} instructions"
    head = f"{name} by operator: {total} in all ({times.kind}, {times.statistic} of {times.runs})"
    return ["", head, *lines, *(f"note: {name}: {note}" for note in times.notes)]


def _taken(results: Sequence[BenchResult]) -> list[str]:
    """Where and how the samples were taken: one line for all files, or one for each."""
    protocol_of = [(result.path.name, result.measurements[0].protocol) for result in results]
    device, protocols = results[0].device, {protocol for _, protocol in protocol_of}
    if len(protocols) == 1:
        return [f"{device}, {protocol}" for protocol in protocols if protocol]
    return [f"{device}, {name}, {protocol}" for name, protocol in protocol_of if protocol]


def _missing(results: Sequence[BenchResult], columns: Sequence[str]) -> list[str]:
    """Why a cell of the table is empty: one line for all files, or with the files it applies to."""
    found: dict[str, list[str]] = {}
    for result in results:
        for one in result.measurements:
            if one.value is None and _column(one) in columns:
                found.setdefault(f"{one.metric}: {one.reason}", []).append(result.path.name)
    return [
        why if len(names) == len(results) else f"{', '.join(names)}: {why}"
        for why, names in found.items()
    ]


def _column(one: Measurement) -> str:
    """The table's column for a metric; end-to-end metrics share the columns of the model alone."""
    metric = one.metric.removeprefix("end_to_end_")
    return f"latency_{metric}" if metric.startswith("ms_") else metric


def _tensors(result: BenchResult) -> list[str]:
    """The inputs and outputs of a file that has several."""
    if max(len(result.inputs), len(result.outputs)) < 2:
        return []
    parts = [f"takes {', '.join(map(str, result.inputs))}"] if result.inputs else []
    parts += [f"gives {', '.join(map(str, result.outputs))}"] if result.outputs else []
    return [f"{result.path.name}: {'; '.join(parts)}"]


def _static(result: BenchResult) -> str:
    """What is known about a file without running it, on one line."""
    cells = []
    for row in result.measurements:
        if row.metric in STATIC and row.value is not None:
            mark = "" if row.kind == "measured" else f" ({row.kind})"
            cells.append(f"{STATIC[row.metric]} {metric_text(row.metric, row.value)}{mark}")
    return f"{result.path.name}: {', '.join(cells)}"


def _judgement(one: Judgement) -> str:
    value = "unknown" if one.value is None else f"{one.value:.4g} ({one.kind})"
    why = f": {one.reason}" if one.reason else ""
    return f"{one.metric} {value}, limit {one.limit:g}: {one.verdict}{why}"


def _cell(one: Measurement) -> str:
    if one.value is None:
        return "-"
    value = one.value / 1e6 if one.metric.endswith("_bytes") else one.value
    mark = "" if one.kind == "measured" else f" ({one.kind})"
    return f"{value:.4g}{mark}"


def _ratio_cell(result: BenchResult) -> str:
    if result.baseline:
        return "baseline"
    ratio = result.ratio
    if ratio is None or ratio.value is None:
        return "-"
    interval = f" [{ratio.ci[0]:.3f}, {ratio.ci[1]:.3f}]" if ratio.ci else ""
    return f"{ratio.value:.3f}x{interval}"
