"""Energy of a board from its own sensors, read on the board while it runs and integrated here.

The board lists its sensors and sends the raw numbers from their files, with times on the clock that
the windows of runs are also on.
"""

import re
import tempfile
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from edgekd.devices import Device, Recording
from edgekd.errors import ToolError
from edgekd.measure.meters.energy import Source, Trace, open_source
from edgekd.values.target import Sensors

PERIOD_S = 0.05
_PATH = re.compile(r"/sys/[A-Za-z0-9:._/-]+")
PATTERNS = (
    "/sys/class/powercap/intel-rapl:*/name",
    "/sys/class/powercap/intel-rapl:*/energy_uj",
    "/sys/class/powercap/intel-rapl:*/max_energy_range_uj",
    "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_label",
    "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in*_input",
    "/sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/curr*_input",
)


class BoardRecorder:
    """Records the target's sensor on a device inside a `with` block. If that is not possible,
    `reason` says why and nothing is recorded."""

    def __init__(self, device: Device, sensors: Sensors) -> None:
        self._device = device
        self._values: dict[Path, int] = {}
        self._paths: list[str] = []
        self._source: Source | None = None
        self._stack = ExitStack()
        self._recording: Recording | None = None
        files = device.look(PATTERNS) if sensors.energy != "none" else {}
        with tempfile.TemporaryDirectory(prefix="edgekd-") as folder:
            root = Path(folder)
            for name, text in files.items():
                path = _below(root, name)
                try:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_text(text, encoding="utf-8")
                except OSError:  # a path below a file
                    raise ToolError(
                        f"the path of a sensor's file can't be {name!r}", where="the board"
                    ) from None
                if text.isascii() and text.isdigit():
                    self._values[path] = int(text)
            self._source, reason = open_source(sensors, root, self._number)
            self.reason = reason.replace(folder, device.name)
            if self._source is not None:
                self._paths = ["/" + str(path.relative_to(root)) for path in self._source.files]

    def __enter__(self) -> Self:
        if self._source is not None:
            self._recording = self._stack.enter_context(self._device.record(self._paths, PERIOD_S))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        stack: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, error, stack)

    def now(self) -> float:
        """The clock of the trace: the board's."""
        assert self._recording is not None
        return self._recording.now()

    def trace(self) -> Trace | str:
        """The recording, or why it is not usable."""
        if self._source is None or self._recording is None:
            return self.reason
        seconds, joules = [], []
        for moment, row in self._recording.points:
            if len(row) != len(self._paths) or None in row:
                missing = self._paths[row.index(None)] if None in row else "a file"
                return f"{self._device.name} could not always read {missing}"
            self._values = dict(zip(self._source.files, (one or 0 for one in row), strict=True))
            seconds.append(moment)
            joules.append(self._source.joules(moment))
        if len(seconds) < 2:
            return f"{self._device.name} recorded nothing"
        if seconds != sorted(seconds):
            return f"{self._device.name} recorded times that are out of order"
        return Trace(np.array(seconds), np.array(joules), self._source.name)

    def _number(self, path: Path) -> int:
        if path not in self._values:
            raise ToolError("not a number, or readable only by root", where=path.name)
        return self._values[path]


def _below(root: Path, name: str) -> Path:
    """The place for a file of the board below a local folder, wherever the board says the
    file is."""
    parts = name.split("/")
    if not _PATH.fullmatch(name) or ".." in parts or max(map(len, parts)) > 200:
        raise ToolError(f"invalid path of a sensor's file: {name!r}", where="the board")
    return root / name.lstrip("/")
