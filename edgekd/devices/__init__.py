"""What a device is: something that runs an artifact and returns raw samples."""

# code-key: measures

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from edgekd.devices._replies import Hello
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.measurement import Kind

Options = dict[str, Any]
"""The target's table of the backend that made the artifact; keys about compiling are ignored."""

Scope = Literal["model", "end-to-end"]


@dataclass(frozen=True)
class Samples:
    """What one benchmark of one artifact gave.

    `windows_ms` are the latencies of single inferences, in the windows they were taken in; of a
    very fast model they are some of them, and `counts` says how many runs each window had.
    `cold_ms` is load plus first inference in a process of its own. `conditions` has governor,
    threads, affinity, temperature and versions; `invalid` says why the run does not count (it
    throttled), if so. `scope` is what one latency covers: the model alone, or end-to-end (with
    quantizing and layout). `spans_s` are each window's start and end on the monotonic clock of the
    device, to attribute energy. `memory_reason` says why there is no peak memory.
    """

    windows_ms: tuple[tuple[float, ...], ...]
    cold_ms: float | None
    peak_memory_bytes: int | None
    conditions: dict[str, str]
    quick: bool = False
    invalid: str = ""
    scope: Scope = "model"
    spans_s: tuple[tuple[float, float], ...] = ()
    memory_reason: str = ""
    counts: tuple[int, ...] = ()

    @property
    def runs(self) -> tuple[int, ...]:
        """How many were timed in each window."""
        return self.counts or tuple(map(len, self.windows_ms))


class Recording(Protocol):
    """Numbers that stood in files of a device. `points` are complete once it has ended: moments in
    seconds of the device's monotonic clock, and a number a file, None where it held none."""

    points: list[tuple[float, tuple[int | None, ...]]]

    def now(self) -> float:
        """The device's clock."""


class Device(Protocol):
    """Somewhere an artifact runs. `kind` is what its latencies are: measured or simulated."""

    name: str
    kind: Kind

    def hello(self) -> Hello:
        """What it is: processor, memory, runtimes and sensors, asked once."""

    def can_run(self, artifact: Artifact) -> str:
        """An empty string, or the reason why it can't run there."""

    def probe(
        self, path: Path, runtime: str, options: Options
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs and outputs of a file, as the runtime there tells them; unknown sizes are -1.
        Raises `MissingRuntime` for one that is not there, `InputError` for a file that it can't
        load."""

    def infer(self, artifact: Artifact, inputs: np.ndarray, options: Options) -> np.ndarray:
        """Float outputs (N, ...) for float inputs (N, ...), in batches of the artifact's own size;
        quantized inputs and outputs are converted on the way with the artifact's own scales.
        `input_layout` "NHWC", in options or the artifact's facts, transposes NCHW inputs."""

    def benchmark(
        self, artifacts: Sequence[Artifact], options: Options | Sequence[Options], *, quick: bool
    ) -> list[Samples]:
        """Latency samples of each, interleaved (A B A B) in one pinned process. One table of
        options for all, or one for each; `scope = "end-to-end"` times the conversions too."""

    def look(self, patterns: Sequence[str]) -> dict[str, str]:
        """The text of the device's own small files below /sys and /proc, by path."""

    def record(self, files: Sequence[str], period_s: float) -> AbstractContextManager[Recording]:
        """Read the numbers in such files every `period_s`, in a process of its own beside what else
        runs there, while the block lasts."""

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        """Run a command there, such as a vendor's builder: exit status, stdout and stderr. The
        status is 127 for a command that is not there, 124 for one that ran past its limit."""

    def send(self, path: Path) -> str:
        """The path there of a copy of a file, in a folder where a builder may write beside it."""

    def fetch(self, there: str, to: Path) -> None:
        """Bring a file from there, written beside `to` and renamed."""

    def close(self) -> None:
        """End whatever was started."""
