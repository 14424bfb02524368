"""One compilation as a value, and the process that does it under a time limit."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekd.backends.tvm import cuda
from edgekd.errors import ToolError
from edgekd.quant.export import quiet

WHERE = "backends.tvm"


@dataclass(frozen=True)
class Job:
    """What the library's bytes depend on, beside the program.

    `target` is TVM's target table, `isa` the processor's vectors, `dot` its 8-bit dot product, by
    name, and `features` what the code needs of a processor. `grid_seconds` is 0 where this machine
    can't time the target's code. `known_tiles` are an earlier grid's results by layer.
    """

    target: dict[str, Any]
    isa: dict[str, int]
    architecture: str
    precision: str
    grid_seconds: float = 0.0
    tune_seconds: float = 0.0
    dot: str = ""
    features: tuple[str, ...] = ()
    known_tiles: dict[str, list[int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Built:
    """A compiled library and what is known about it (the worker's `result.json`)."""

    library: Path
    result: dict[str, Any]


def run_worker(
    program: torch.export.ExportedProgram, job: Job, seconds: float, folder: Path
) -> Built:
    """Compile in a process of its own; `library.so` and `result.json` are left in `folder`.

    Raises `ToolError` when it crashes or does not end within `seconds`.
    """
    with tempfile.TemporaryDirectory(prefix="edgekd-tvm-") as name:
        work = Path(name)
        with quiet():
            torch.export.save(program, work / "program.pt2")
        (work / "job.json").write_text(json.dumps(asdict(job)))
        # One thread: the grid times kernels as a board's single core would run them.
        environment = os.environ | {"TVM_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
        if job.target["kind"] == "cuda":
            environment |= cuda.environment(work, environment)
        _run(work, environment, seconds)
        for file in ("library.so", "result.json"):
            shutil.copyfile(work / file, folder / file)
    return read_built(folder)


def read_built(folder: Path) -> Built:
    """What `run_worker` left in a folder."""
    return Built(folder / "library.so", json.loads((folder / "result.json").read_text()))


def _run(work: Path, environment: dict[str, str], seconds: float) -> None:
    command = [sys.executable, "-m", "edgekd.backends.tvm.worker", str(work)]
    # A group of its own, so that a time-out ends the compilers that it started as well; and it ends
    # itself when its input closes, so that it does not outlive a killed parent.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            raise ToolError(
                f"TVM did not finish within {seconds:g} s",
                where=WHERE,
                hint="raise time_limit_seconds, or lower grid_seconds or tune_seconds",
            ) from None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            assert process.stdin is not None
            process.stdin.close()
        log.seek(0)
        output = log.read()
    if process.returncode:
        raise ToolError(_failure(process.returncode, output), where=WHERE)


def _failure(code: int, output: bytes) -> str:
    lines = [line.strip() for line in output.decode(errors="replace").splitlines()]
    errors = [line for line in lines if re.match(r"[\w.]*Error: ", line)]
    reason = next(reversed(errors or [line for line in lines if line]), "no message")
    how = f"signal {-code}" if code < 0 else f"exit code {code}"
    return f"TVM's compiler ended with {how}: {reason}"
