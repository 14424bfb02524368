"""One compilation as a value, and the process that does it under a time limit."""

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekd.errors import ToolError

CRASHED = "TVM's compiler ended with {code}: {reason}"


@dataclass(frozen=True)
class Job:
    """What the library's bytes depend on, beside the program.

    `target` is TVM's target table, `isa` the processor's vectors, `grid_seconds` 0 where this
    machine can't time the target's code. `known_tiles` are an earlier grid's results by layer.
    """

    target: dict[str, Any]
    isa: dict[str, int]
    architecture: str
    precision: str
    grid_seconds: float = 0.0
    tune_seconds: float = 0.0
    known_tiles: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """A compiled library and what is known about it (the worker's `result.json`)."""

    library: Path
    result: dict[str, Any]


def run_worker(
    program: torch.export.ExportedProgram, job: Job, seconds: float, folder: Path
) -> Built:
    """Compile in a process of its own; files are left in `folder`.

    Raises `ToolError` when it crashes or does not end within `seconds`.
    """
    torch.export.save(program, folder / "program.pt2")
    (folder / "job.json").write_text(json.dumps(asdict(job)))
    command = [sys.executable, "-m", "edgekd.tvm_compile.worker", str(folder)]
    # One thread: the grid times kernels as a board's single core would run them.
    environment = os.environ | {"TVM_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    with tempfile.TemporaryFile() as log:
        try:
            code = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                timeout=seconds,
                env=environment,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            raise ToolError(
                f"TVM did not finish within {seconds:g} s",
                where="backends.tvm",
                hint="raise time_limit_seconds, or lower grid_seconds or tune_seconds",
            ) from None
        if code:
            log.seek(0)
            raise ToolError(_failure(code, log.read()), where="backends.tvm")
    (folder / "program.pt2").unlink()
    return Built(folder / "library.so", json.loads((folder / "result.json").read_text()))


def _failure(code: int, output: bytes) -> str:
    lines = [line for line in output.decode(errors="replace").splitlines() if line.strip()]
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return CRASHED.format(code=how, reason=lines[-1].strip() if lines else "no message")
