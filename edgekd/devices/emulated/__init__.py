"""An emulated ARM board: `emulated://NAME`, created by `edgekd board create NAME`.

Its times are numbers of instructions (one nanosecond each), so they are simulated, and repeat to
within a part in a thousand. Everything runs on one core with one thread: a profile's `threads` are
ignored, and the conditions say so.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.devices import Options, Samples
from edgekd.devices.emulated.catalog import Board, find_board, list_boards
from edgekd.devices.emulated.processors import hardware_of
from edgekd.devices.emulated.virtio import BoardTransport
from edgekd.devices.session import AgentDevice
from edgekd.devices.transport import AGENT
from edgekd.registry import DEVICES
from edgekd.values.artifact import Artifact, TensorInfo

LIMIT_SECONDS = 1800.0
"""The longest silence: an emulated instruction takes at least ten instructions of the host."""

COUNTED = {
    "warmup_runs": 3, "warmup_s": 0.0, "warmup_window_s": 0.005, "warmup_limit_s": 1.0,
    "settled": 0.005, "windows": 5, "window_s": 0.01, "runs": 100, "seconds": 0.0, "limit_s": 0.5,
}  # fmt: skip
"""Instruction counts repeat, so they need neither a minute nor a thousand runs. But the kernel's
tick, once in 4 ms, falls into some runs and not into others, and p90 needs enough of both."""

COUNTED_QUICK = {**COUNTED, "windows": 3, "runs": 9, "limit_s": 0.0}


class EmulatedBoard(AgentDevice):
    """An agent on a created board."""

    def __init__(self, board: Board, agent: Path, limit_s: float, **session: Any) -> None:
        transport = BoardTransport(board, agent, limit_s)
        name = f"emulated://{board.name}"
        super().__init__(name, "simulated", transport, limit_s=limit_s, **session)
        self._board = board

    def probe(
        self, path: Path, runtime: str, options: Options
    ) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
        return super().probe(path, runtime, _one_core(options))

    def infer(
        self, artifact: Artifact, inputs: Sequence[np.ndarray], options: Options
    ) -> tuple[np.ndarray, ...]:
        return super().infer(artifact, inputs, _one_core(options))

    def benchmark(
        self, artifacts: Sequence[Artifact], options: Options | Sequence[Options], *, quick: bool
    ) -> list[Samples]:
        per_model = [options] * len(artifacts) if isinstance(options, dict) else list(options)
        protocol = COUNTED_QUICK if quick else COUNTED
        ready = [_one_core({"protocol": protocol, **option}) for option in per_model]
        samples = super().benchmark(artifacts, ready, quick=quick)
        return [
            replace(sample, conditions=self._conditions_of(sample, option))
            for sample, option in zip(samples, per_model, strict=True)
        ]

    def _conditions_of(self, samples: Samples, options: Options) -> dict[str, str]:
        """The conditions of a run, with the emulator in place of the clock."""
        asked = int(options.get("threads", 1))
        emulated = {
            "clock": "1 ns an instruction; no caches, no pipeline",
            "emulator": f"QEMU {self._board.emulator} -cpu {self._board.processor} -icount shift=0",
            "kernel": self._board.kernel,
            "board": self._board.key,
        }
        if asked > 1:
            emulated["threads"] = f"1 (the profile says {asked}; one core is emulated)"
        return {**samples.conditions, **emulated}


@DEVICES.register()
def open_emulated(
    location: str, *, agent: Path = AGENT, limit_s: float = LIMIT_SECONDS, **session: Any
) -> AgentDevice:
    """The created board of that name; it is started on first use. Raises `InputError` with the
    command that creates it, if it does not exist."""
    if location not in [board.name for board in list_boards()]:
        hardware_of(location)  # refuse a target that can't be emulated
    return EmulatedBoard(find_board(location), agent, limit_s, **session)


def _one_core(options: Options) -> Options:
    return {**options, "threads": 1, "num_cores": 1}
