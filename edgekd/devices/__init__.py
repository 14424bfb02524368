"""What a device is: something that runs an artifact and returns raw samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from edgekd.artifact import Artifact
from edgekd.measurement import Kind


@dataclass(frozen=True)
class Samples:
    """What one benchmark of one artifact gave.

    `windows_ms` are the latencies of single inferences, in the windows they were taken in;
    `cold_ms` is load plus first inference. `conditions` has governor, threads, affinity,
    temperature and versions; `invalid` says why the run does not count (it throttled), if so.
    """

    windows_ms: tuple[tuple[float, ...], ...]
    cold_ms: float
    peak_memory_bytes: int | None
    conditions: dict[str, str]
    quick: bool = False
    invalid: str = ""


class Device(Protocol):
    """Somewhere an artifact runs. `kind` is what its latencies are: measured or simulated."""

    name: str
    kind: Kind

    def can_run(self, artifact: Artifact) -> str:
        """An empty string, or the reason why it can't run there."""

    def infer(self, artifact: Artifact, inputs: np.ndarray, options: dict[str, Any]) -> np.ndarray:
        """Float outputs (N, ...) for float inputs (N, ...), in batches of the artifact's own size;
        quantized inputs and outputs are converted on the way with the artifact's own scales."""

    def benchmark(
        self, artifacts: Sequence[Artifact], options: dict[str, Any], *, quick: bool
    ) -> list[Samples]:
        """Latency samples of each, interleaved (A B A B) in one pinned process."""

    def close(self) -> None:
        """End whatever was started."""
