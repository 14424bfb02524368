"""One measuring run: latency, memory and energy of several artifacts, interleaved on a device."""

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from edgekd.artifact import Artifact
from edgekd.devices import Device, Options, Samples
from edgekd.measurement import Measurement
from edgekd.meters.energy import Recorder, Trace, energy_measurement, open_source
from edgekd.meters.latency import latency_measurements
from edgekd.meters.memory import memory_measurements
from edgekd.target import Sensors

IDLE_SECONDS = 5.0


def measure(
    device: Device,
    artifacts: Sequence[Artifact],
    options: Options | Sequence[Options],
    sensors: Sensors,
    *,
    quick: bool,
    root: Path = Path("/"),
) -> tuple[list[Samples], list[tuple[Measurement, ...]]]:
    """Samples and latency, memory and energy of each artifact, from one interleaved run.

    Energy is read on this machine (below `root`), so only for the device `host`; idle power is
    taken for some seconds before a full run and subtracted.
    """
    source, reason = None, f"{device.name} tells no energy: sensors are read on the host only"
    if device.name == "host":
        source, reason = open_source(sensors, root)
    trace: Trace | str = reason
    idle: float | None = None
    with ExitStack() as stack:
        recorder = None
        if source is not None:
            recorder = stack.enter_context(Recorder(source))
            begun = time.monotonic()
            time.sleep(0.0 if quick else IDLE_SECONDS)
            rested = time.monotonic()
        samples = device.benchmark(artifacts, options, quick=quick)
    if recorder is not None:
        trace = recorder.trace()
        if isinstance(trace, Trace) and not quick:
            idle = trace.between(begun, rested) / (rested - begun)
    kind = device.kind
    rows = [
        (
            *latency_measurements(each, device.name, kind),
            *memory_measurements(each, device.name, kind, artifact),
            energy_measurement(each, trace, device.name, idle),
        )
        for each, artifact in zip(samples, artifacts, strict=True)
    ]
    return samples, rows
