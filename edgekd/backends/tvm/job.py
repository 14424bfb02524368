"""One compilation as a value, and the process that does it under a time limit."""

import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from edgekd.backends.tvm import cuda
from edgekd.errors import ToolError
from edgekd.processes import how_it_ended
from edgekd.processes.forked import run_module
from edgekd.quant.export import quiet

WHERE = "backends.tvm"
WORKER = "edgekd.backends.tvm.worker"


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
        environment = worker_environment()
        if job.target["kind"] == "cuda":
            environment |= cuda.environment(work, environment)
        _run(work, environment, seconds)
        for file in ("library.so", "result.json"):
            shutil.copyfile(work / file, folder / file)
    return read_built(folder)


def worker_environment() -> dict[str, str]:
    """The worker's environment. One thread: the grid times kernels as a board's single core would
    run them."""
    return os.environ | {"TVM_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def read_built(folder: Path) -> Built:
    """What `run_worker` left in a folder."""
    return Built(folder / "library.so", json.loads((folder / "result.json").read_text()))


def _run(work: Path, environment: dict[str, str], seconds: float) -> None:
    hint = "raise time_limit_seconds, or lower grid_seconds or tune_seconds"
    done = run_module(
        WORKER, [str(work)], seconds, "TVM", WHERE, hint=hint, environment=environment
    )
    if done.status:
        raise ToolError(_failure(done.status, done.lines), where=WHERE, detail=done.log)


def _failure(code: int, lines: list[str]) -> str:
    errors = [line for line in lines if re.match(r"[\w.]*Error: ", line)]
    reason = next(reversed(errors or lines), "no message")
    return f"TVM's compiler failed ({how_it_ended(code)}): {reason}"
