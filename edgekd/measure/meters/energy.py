"""Energy per inference: RAPL counters and INA3221 rails, recorded during a latency run.

Every source reads files below a root folder. A `Recorder` reads its source in a thread while the
device benchmarks. The windows of runs are located in the trace by the monotonic clock that both
share, so that the energy of interleaved models can be separated.
"""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

import numpy as np

from edgekd.devices import Samples
from edgekd.errors import ToolError
from edgekd.values.artifact import Precision
from edgekd.values.measurement import Measurement, unavailable
from edgekd.values.target import Sensors

LEAST_SECONDS = 10.0
"""A shorter run of one model is lost in the sensors' update intervals and noise."""

PICOJOULES_PER_MAC = {"fp32": 3.7 + 0.9, "fp16": 1.1 + 0.4, "int8": 0.2 + 0.1}
PICOJOULES_PER_BYTE = 1300 / 8
"""Multiply plus add (int8 adds in 32 bits), and a byte from DRAM, at 45 nm. Horowitz, "Computing's
energy problem", ISSCC 2014, figure 1.1.9."""


Number = Callable[[Path], int]


class Source(Protocol):
    """A sensor. `joules` counts up from any start; `seconds` is the monotonic clock. `files` are
    the files it reads each time."""

    name: str
    files: tuple[Path, ...]

    def joules(self, seconds: float) -> float:
        """Energy so far, read now."""


class Rapl:
    """x86 processors' own counters: every package, and its DRAM if that is counted separately.

    A counter wraps around at `max_energy_range_uj`; reading it at least once per turn (minutes)
    keeps the sum right.
    """

    def __init__(self, domains: Sequence[Path], number: Number | None = None) -> None:
        self._number = number or _number
        self.files = tuple(domain / "energy_uj" for domain in domains)
        self._ranges = [_number(domain / "max_energy_range_uj") for domain in domains]
        self._last = [self._number(counter) for counter in self.files]
        self._total_uj = 0
        self.name = "RAPL " + ", ".join(_text(domain / "name") for domain in domains)

    def joules(self, seconds: float) -> float:
        for which, counter in enumerate(self.files):
            now = self._number(counter)
            step = now - self._last[which]
            self._total_uj += step if step >= 0 else step + self._ranges[which]
            self._last[which] = now
        return self._total_uj / 1e6


class Ina3221:
    """A board's power rails, by label; watts are volts times amperes, integrated by the trapezoidal
    rule."""

    def __init__(self, rails: dict[str, tuple[Path, Path]], number: Number | None = None) -> None:
        self._number = number or _number
        self._rails = rails
        self.files = tuple(path for pair in rails.values() for path in pair)
        self._last: tuple[float, float] | None = None
        self._total = 0.0
        self.name = "INA3221 " + ", ".join(rails)

    def watts(self) -> float:
        """The sum of the rails, now."""
        return sum(self._number(mv) * self._number(ma) for mv, ma in self._rails.values()) / 1e6

    def joules(self, seconds: float) -> float:
        watts = self.watts()
        if self._last is not None:
            before, last = self._last
            self._total += (seconds - before) * (watts + last) / 2
        self._last = (seconds, watts)
        return self._total


def open_source(
    sensors: Sensors, root: Path = Path("/"), number: Number | None = None
) -> tuple[Source | None, str]:
    """The target's sensor, or None and the reason why it can't be read. `number` reads one of its
    files in another way: from another time or another machine."""
    try:
        if sensors.energy == "rapl":
            return _open_rapl(root, number)
        if sensors.energy == "ina3221":
            return _open_ina3221(root, sensors.rails, number)
    except ToolError as error:
        return None, str(error)
    return None, "the target has no energy sensor"


def _open_rapl(root: Path, number: Number | None) -> tuple[Source | None, str]:
    powercap = root / "sys/class/powercap"
    zones = sorted(powercap.glob("intel-rapl:*"))
    chosen = [zone for zone in zones if _text(zone / "name").startswith(("package", "dram"))]
    if not chosen:
        return None, f"no RAPL counter below {powercap}"
    return Rapl(chosen, number), ""


def _open_ina3221(
    root: Path, wanted: Sequence[str], number: Number | None
) -> tuple[Source | None, str]:
    drivers = root / "sys/bus/i2c/drivers/ina3221"
    labels = sorted(drivers.glob("*/hwmon/hwmon*/in*_label"))
    found = {}
    for label in labels:
        channel = label.name.removeprefix("in").removesuffix("_label")
        current = label.with_name(f"curr{channel}_input")
        if current.exists():  # a sum of shunt voltages also has a label, but no current
            found[_text(label)] = (label.with_name(f"in{channel}_input"), current)
    missing = [rail for rail in wanted if rail not in found]
    if not found:
        return None, f"no INA3221 rail below {drivers}"
    if missing or not wanted:
        there = ", ".join(found)
        return None, f"no rail {', '.join(missing) or 'is named'}; the board has {there}"
    return Ina3221({rail: found[rail] for rail in wanted}, number), ""


@dataclass(frozen=True)
class Trace:
    """Cumulative joules at each time of the monotonic clock."""

    seconds: np.ndarray
    joules: np.ndarray
    source: str

    def between(self, start: float, end: float) -> float:
        """Joules between two times, which both have to be within the trace."""
        if start < self.seconds[0] or end > self.seconds[-1]:
            raise ValueError("outside the recording")
        low, high = np.interp([start, end], self.seconds, self.joules)
        return float(high - low)


class Recorder:
    """Reads a source every `period_s` in a thread, inside a `with` block."""

    def __init__(self, source: Source, period_s: float = 0.02) -> None:
        self._source = source
        self._period_s = period_s
        self._points: list[tuple[float, float]] = []
        self._stop = threading.Event()
        self._failed = ""
        self._thread = threading.Thread(target=self._run, name="energy", daemon=True)

    def __enter__(self) -> Self:
        self._read()
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._read()

    def now(self) -> float:
        """The clock of the trace."""
        return time.monotonic()

    def trace(self) -> Trace | str:
        """The recording, or why it is not usable."""
        if self._failed:
            return self._failed
        seconds, joules = np.array(self._points).T
        return Trace(seconds, joules, self._source.name)

    def _run(self) -> None:
        while not self._stop.wait(self._period_s):
            self._read()

    def _read(self) -> None:
        now = time.monotonic()
        try:
            self._points.append((now, self._source.joules(now)))
        except ToolError as error:
            self._failed = str(error)


def energy_measurement(
    samples: Samples, trace: Trace | str, device: str, idle_watts: float | None = None
) -> Measurement:
    """`energy_mj`: millijoules per inference, with the bootstrap interval over windows.

    `trace` is the recording made during the run, or the reason why there is none. `idle_watts`, the
    machine's power when idle, is subtracted if given; the protocol says which. End-to-end samples
    give `end_to_end_energy_mj`.
    """
    metric = "energy_mj" if samples.scope == "model" else "end_to_end_energy_mj"
    reason = trace if isinstance(trace, str) else samples.invalid
    spans = samples.spans_s
    seconds = sum(end - start for start, end in spans)
    if not reason and seconds < LEAST_SECONDS:
        reason = f"needs {LEAST_SECONDS:g} s of runs, got {seconds:.1f} s"
    try:
        if reason or isinstance(trace, str):
            raise ValueError(reason)
        idle = idle_watts or 0.0
        spent = np.array([trace.between(start, end) - idle * (end - start) for start, end in spans])
        if spent.sum() <= 0:  # something else ran while idle power was measured
            raise ValueError(f"no more power than the {idle:.3f} W measured when idle")
    except ValueError as error:
        return unavailable(metric, str(error), device=device)
    # Each window has one untimed run (it refills the caches) that uses energy too.
    runs = np.array(samples.runs) + 1
    drawn = np.random.default_rng(0).integers(len(runs), size=(1000, len(runs)))
    low, high = np.quantile(spent[drawn].sum(1) / runs[drawn].sum(1), [0.025, 0.975])
    subtracted = f"{idle_watts:.3f} W idle subtracted" if idle_watts else "idle power included"
    return Measurement(
        metric=metric,
        value=1000 * float(spent.sum() / runs.sum()),
        kind="measured",
        device=device,
        ci=(1000 * float(low), 1000 * float(high)),
        protocol=f"{trace.source}, {seconds:.1f} s in {len(spans)} windows, {subtracted}",
        conditions=samples.conditions,
    )


def estimated_energy(macs: int, bytes_moved: int, precision: Precision) -> Measurement:
    """`energy_estimate_mj` from operations and bytes: an order of magnitude, with a name of its own
    so that no budget takes it for measured energy."""
    # Values that are only stored in fewer bits are computed in float.
    arithmetic = precision if precision in PICOJOULES_PER_MAC else "fp32"
    picojoules = macs * PICOJOULES_PER_MAC[arithmetic] + bytes_moved * PICOJOULES_PER_BYTE
    return Measurement(
        metric="energy_estimate_mj",
        value=picojoules / 1e9,
        kind="estimated",
        device="formula",
        protocol=f"{macs} MACs in {arithmetic} and {bytes_moved} bytes at 45 nm (Horowitz 2014)",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ToolError(f"not readable: {error.strerror}", where=str(path)) from None


def _number(path: Path) -> int:
    text = _text(path)
    try:
        return int(text)
    except ValueError:
        raise ToolError(f"not a number: {text[:40]!r}", where=str(path)) from None
