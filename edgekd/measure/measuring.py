"""One measuring run: latency, memory and energy of several artifacts, interleaved on a device."""

import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from edgekd.devices import Device, Options, Samples
from edgekd.measure.meters.board_energy import BoardRecorder
from edgekd.measure.meters.energy import Recorder, Trace, energy_measurement, open_source
from edgekd.measure.meters.latency import latency_measurements
from edgekd.measure.meters.memory import memory_measurements
from edgekd.values.artifact import Artifact
from edgekd.values.measurement import Measurement
from edgekd.values.target import Sensors

IDLE_SECONDS = 5.0


class EnergyRecorder(Protocol):
    """Records power inside a `with` block. `now` and the trace are on the device's clock."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None: ...

    def now(self) -> float:
        """The device's clock."""

    def trace(self) -> Trace | str:
        """The recording, or why it is not usable."""


def measure(
    device: Device,
    artifacts: Sequence[Artifact],
    options: Options | Sequence[Options],
    sensors: Sensors,
    *,
    quick: bool,
    root: Path = Path("/"),
    recorder: EnergyRecorder | None = None,
) -> tuple[list[Samples], list[tuple[Measurement, ...]]]:
    """Samples, latency, memory and energy of each artifact, from one interleaved run.

    Energy is read where the artifacts run: on this machine below `root`, by the board itself, or by
    `recorder` (an external meter). Before a full run, idle power is measured for some seconds and
    later subtracted.
    """
    reason = ""
    if recorder is None:
        recorder, reason = _recorder(device, sensors, root)
    trace: Trace | str = reason
    idle: float | None = None
    with ExitStack() as stack:
        if recorder is not None:
            stack.enter_context(recorder)
            begun = recorder.now()
            time.sleep(0.0 if quick else IDLE_SECONDS)
            rested = recorder.now()
        samples = device.benchmark(artifacts, options, quick=quick)
    if recorder is not None:
        trace = recorder.trace()
        if isinstance(trace, Trace) and not quick:
            with suppress(
                ValueError
            ):  # a meter that started late: idle power is included, and the protocol says so
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


def _recorder(device: Device, sensors: Sensors, root: Path) -> tuple[EnergyRecorder | None, str]:
    """The energy recorder for a benchmark on a device, or None and the reason."""
    if device.name == "host":
        source, reason = open_source(sensors, root)
        return (None if source is None else Recorder(source)), reason
    if device.kind != "measured":
        return None, f"{device.name} is an emulator: it uses the host's energy, not the board's"
    board = BoardRecorder(device, sensors)
    return (None if board.reason else board), board.reason
