"""Samples per second by batch and by the number of copies that run side by side."""

from collections.abc import Sequence
from dataclasses import replace

from edgekd.devices import Device, Options, Streamed
from edgekd.devices.samples import threads_of
from edgekd.errors import MissingRuntime, ToolError
from edgekd.measure.meters.throughput import METRIC, throughput_measurement
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Measurement, unavailable
from edgekd.values.tables import Value

BATCHES = (1, 8)
"""The batches that are measured of a file that leaves it open, unless others are wanted."""

ROUNDS = 3
"""Every combination is measured so often, one after the other, so that none has the better
minutes; a quick measurement has one round."""


class Throughput(Value):
    """What `streams` copies of a file, each with so many threads, reach with one batch: samples per
    second of all of them, and the mean time of one inference of the batch."""

    batch: int
    streams: int
    threads: int
    samples_per_second: Measurement
    batch_ms: float | None = None


class Load(Value):
    """Which combinations to measure; without batches or streams the defaults."""

    batches: tuple[int, ...] = ()
    streams: tuple[int, ...] = ()


def throughputs(
    device: Device, artifact: Artifact, options: Options, load: Load, quick: bool
) -> tuple[tuple[Throughput, ...], tuple[str, ...]]:
    """A row for each batch and number of streams, and notes on what was not measured.

    Each stream is a process with a copy of the model; all run at the same time, and their runs are
    counted in the same windows.
    """
    batches, notes = _batches(artifact, load)
    threads = threads_of(options)
    streams = load.streams or _streams(device, threads)
    wanted = [(batch, count) for batch in batches for count in streams]
    taken: dict[tuple[int, int], list[Streamed]] = {each: [] for each in wanted}
    reasons: dict[tuple[int, int], str] = {}
    for _ in range(1 if quick else ROUNDS):
        for each in wanted:
            batch, count = each
            try:
                sized = _with_batch(artifact, options, batch)
                taken[each].append(device.stream(artifact, sized, count, quick=quick))
            except (MissingRuntime, ToolError) as error:
                reasons[each] = error.message
    rows = []
    for batch, count in wanted:
        reason = reasons.get((batch, count), "")
        parts = taken[batch, count]
        rows.append(
            Throughput(
                batch=batch, streams=count, threads=threads,
                samples_per_second=unavailable(METRIC, reason, device=device.name),
            )
            if reason
            else _row(_joined(parts), batch, count, threads, device, quick)
        )  # fmt: skip
    return tuple(rows), notes


def _row(
    found: Streamed, batch: int, streams: int, threads: int, device: Device, quick: bool
) -> Throughput:
    measurement = throughput_measurement(found, streams, device.name, device.kind, quick)
    value = measurement.value
    return Throughput(
        batch=batch,
        streams=streams,
        threads=threads,
        samples_per_second=measurement,
        batch_ms=1e3 * streams * found.samples_per_run / value if value else None,
    )


def _joined(parts: Sequence[Streamed]) -> Streamed:
    """All rounds as one: their windows behind each other."""
    return replace(
        parts[0],
        runs_per_second=tuple(rate for each in parts for rate in each.runs_per_second),
        invalid=next((each.invalid for each in parts if each.invalid), ""),
    )


def _batches(artifact: Artifact, load: Load) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The batches to measure: those wanted, or the file's own where it fixes it."""
    firsts = [info.shape[0] for info in artifact.inputs if info.shape]
    if -1 in firsts:
        return load.batches or BATCHES, ()
    own = firsts[0] if firsts else 1
    left = [str(batch) for batch in load.batches or BATCHES if batch != own]
    note = f"its batch is fixed at {own}: no throughput with {', '.join(left)}"
    return (own,), (note,) if left else ()


def _with_batch(artifact: Artifact, options: Options, batch: int) -> Options:
    """The options with a batch of that size in every input that leaves it open."""
    shapes = {
        info.name: [batch, *info.shape[1:]] for info in artifact.inputs if info.shape[:1] == (-1,)
    }
    return {**options, "shapes": {**options.get("shapes", {}), **shapes}} if shapes else options


def _streams(device: Device, threads: int) -> tuple[int, ...]:
    """One copy alone, and as many as fill the device's processors."""
    return tuple(dict.fromkeys((1, max(device.hello().cores // threads, 1))))
