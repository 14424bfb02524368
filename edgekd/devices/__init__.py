"""The `Device` protocol: something that runs an artifact and returns raw samples."""

# code-key: measures

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from edgekd.devices.replies import Hello, Profiled
from edgekd.values.artifact import Artifact, TensorInfo
from edgekd.values.measurement import Kind

Options = dict[str, Any]
"""The target's table for the backend that made the artifact; keys about compiling are ignored."""

Scope = Literal["model", "end-to-end"]


@dataclass(frozen=True)
class Samples:
    """The result of benchmarking one artifact.

    `windows_ms` are the latencies of single inferences, grouped by the windows they were taken in;
    for a very fast model they are a subset, and `counts` says how many runs each window had.
    `cold_ms` is load plus first inference in a separate process. `conditions` has governor,
    threads, affinity, temperature and versions. `invalid` says why the run does not count (for
    example because of throttling). `scope` is what one latency covers: the model alone, or
    end-to-end (with quantizing and layout). `spans_s` are each window's start and end on the
    monotonic clock of the device, to attribute energy. `memory_reason` says why there is no peak
    memory.
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
        """The number of timed runs in each window."""
        return self.counts or tuple(map(len, self.windows_ms))


@dataclass(frozen=True)
class Streamed:
    """How fast several copies of one model ran side by side: the runs of all of them per second, in
    each window of `window_s`. One run takes `samples_per_run` samples. `conditions` and `invalid`
    are those of `Samples`."""

    runs_per_second: tuple[float, ...]
    samples_per_run: int
    window_s: float
    conditions: dict[str, str]
    invalid: str = ""


class Recording(Protocol):
    """Numbers read from files of a device over time.

    `points` are complete once the recording has ended: times in seconds of the device's monotonic
    clock, and one number per file, None if the file held none.
    """

    points: list[tuple[float, tuple[int | None, ...]]]

    def now(self) -> float:
        """The device's clock."""


class Device(Protocol):
    """Something that artifacts run on. `kind` is the kind of its latencies: measured or
    simulated."""

    name: str
    kind: Kind

    def hello(self) -> Hello:
        """Its processor, memory, runtimes and sensors, queried once."""

    def can_run(self, artifact: Artifact) -> str:
        """An empty string, or the reason why it can't run there."""

    def probe(
        self, path: Path, runtime: str, options: Options
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        """Inputs and outputs of a file, as reported by its runtime; unknown sizes are -1.

        Raises `MissingRuntime` if the runtime is not installed, `InputError` if it can't load the
        file.
        """

    def infer(
        self, artifact: Artifact, inputs: Sequence[np.ndarray], options: Options
    ) -> tuple[np.ndarray, ...]:
        """Every output (N, ...) for inputs (N, ...), in batches of the artifact's own size.

        Inputs are in the order of `artifact.inputs`, outputs in that of `artifact.outputs`. Floats
        for a quantized input are put on its grid, and quantized outputs become float32. Integers
        and flags keep their type; an input of another type is cast only if its values fit.
        `input_layout` "NHWC", in the options or the artifact's facts, transposes NCHW inputs.
        Raises `InputError` for inputs of another number, shape or type than the artifact takes.
        """

    def benchmark(
        self, artifacts: Sequence[Artifact], options: Options | Sequence[Options], *, quick: bool
    ) -> list[Samples]:
        """Latency samples of each artifact, interleaved (A B A B) in one pinned process.

        `options` is one table for all, or one for each; `scope = "end-to-end"` includes the
        conversions.
        """

    def profile(self, artifact: Artifact, options: Options, *, quick: bool) -> Profiled:
        """The time of each operator, in order of execution.

        Raises `MissingRuntime` where nothing on the device can tell.
        """

    def stream(
        self, artifact: Artifact, options: Options, streams: int, *, quick: bool
    ) -> Streamed:
        """The rate of so many copies of a model at once, each in a process of its own. `shapes` in
        the options set the batch.

        Raises `MissingRuntime` where the device tells no times.
        """

    def look(self, patterns: Sequence[str]) -> dict[str, str]:
        """The text of small system files of the device, below /sys and /proc, by path."""

    def record(self, files: Sequence[str], period_s: float) -> AbstractContextManager[Recording]:
        """Read the numbers in such files every `period_s` while the block lasts, in a separate
        process."""

    def execute(self, command: Sequence[str], limit_s: float) -> tuple[int, str, str]:
        """Run a command on the device, such as a vendor's builder: exit status, stdout and stderr.

        The status is 127 if there is no such command, and 124 if it exceeded its limit.
        """

    def send(self, path: Path) -> str:
        """Copy a file to a folder on the device where a builder may write beside it; returns its
        path there."""

    def fetch(self, there: str, to: Path) -> None:
        """Copy a file from the device, written to a temporary file beside `to` and renamed."""

    def close(self) -> None:
        """End everything that was started."""
