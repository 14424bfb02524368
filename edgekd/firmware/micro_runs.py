"""Runs of the micro runtime, each in a separate process: its kernels end the process for a bad
model, and for an arena that is too small, since they don't check allocations.

`python -m edgekd.firmware.micro_runs model.tflite` prints one line of JSON: `arena_bytes`, in which
the model runs, and `counted_bytes`, the recording allocator's count while it runs.
"""

import faulthandler
import hashlib
import json
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

ALIGNMENT = 16
AMPLE = 1 << 28
"""An arena large enough for any model of a microcontroller; untouched memory costs nothing."""

SEED = 0
_TOTAL = re.compile(r"Arena allocation total (\d+) bytes")


class Run(NamedTuple):
    """The arena bytes that a run used by the allocator's count, and the SHA-256 of its outputs."""

    counted_bytes: int
    outputs: str


def smallest_arena(content: bytes) -> tuple[int, int]:
    """The smallest arena in which the model gives the same outputs as in a large one, and the
    allocator's count.

    The count leaves out memory that is used only while layers are prepared, so the size grows from
    there until the model runs, and is then narrowed down to 16 bytes. Raises `ValueError` with the
    runtime's last output if the model does not run in a large arena.
    """
    ample = run(content, AMPLE)
    if isinstance(ample, str):
        raise ValueError(ample)
    low, step = _aligned(ample.counted_bytes) - ALIGNMENT, ALIGNMENT
    while not _same(run(content, low + step), ample):
        low, step = low + step, 2 * step
        if low > AMPLE:
            raise ValueError("it does not run in an arena of the size that its allocator counts")
    high = low + step
    while high - low > ALIGNMENT:
        middle = (low + high) // 2 // ALIGNMENT * ALIGNMENT
        if _same(run(content, middle), ample):
            high = middle
        else:
            low = middle
    return high, ample.counted_bytes


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT


def _same(found: Run | str, ample: Run) -> bool:
    return isinstance(found, Run) and found.outputs == ample.outputs


def run(content: bytes, arena_bytes: int) -> Run | str:
    """One run in a separate process, or its last line of output if it failed or crashed."""
    with tempfile.TemporaryFile() as stream:
        child = os.fork()
        if child == 0:
            _run_and_end(content, arena_bytes, stream.fileno())
        _, status = os.waitpid(child, 0)
        stream.seek(0)
        log = stream.read().decode("utf-8", errors="replace")
    lines, total = log.strip().splitlines(), _TOTAL.search(log)
    if status == 0 and total is not None:
        return Run(int(total[1]), lines[-1])
    code = os.waitstatus_to_exitcode(status)
    ended = f"killed by signal {-code}: " if code < 0 else ""
    return ended + (lines[-1] if lines else "no output")


def _run_and_end(content: bytes, arena_bytes: int, log: int) -> None:
    """Never returns: code that follows a fork must not run in the child as well."""
    code = 1
    try:
        faulthandler.disable()  # a crash is a valid result here
        os.dup2(log, 1)
        os.dup2(log, 2)
        outputs = _outputs(content, arena_bytes)
        os.write(log, f"{outputs}\n".encode())
        code = 0
    except Exception as error:
        os.write(log, f"{error}\n".encode())
    finally:
        os._exit(code)


def _outputs(content: bytes, arena_bytes: int) -> str:
    """Run once on seeded inputs, let the allocator print its count, and hash the outputs."""
    import numpy as np
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_bytes(content, arena_size=arena_bytes)
    chance = np.random.default_rng(SEED)
    for index, details in _each(interpreter.get_input_details):
        values = chance.integers(-100, 101, details["shape"]).astype(details["dtype"])
        interpreter.set_input(values, index)
    interpreter.invoke()
    digest = hashlib.sha256()
    for _, output in _each(interpreter.get_output):
        digest.update(np.ascontiguousarray(output).tobytes())
    interpreter.print_allocations()
    return digest.hexdigest()


def _each(get: Callable[[int], Any]) -> Iterator[tuple[int, Any]]:
    """The runtime's tensors at 0, 1, ...: it does not report how many there are."""
    for index in count():
        try:
            tensor = get(index)
        except IndexError:
            return
        yield index, tensor


def main(path: str) -> None:
    """Print the arena of one model; exits with status 1 and the runtime's message if there is
    none."""
    from tflite_micro import runtime  # noqa: F401  # once, before the processes part

    try:
        arena, counted = smallest_arena(Path(path).read_bytes())
    except ValueError as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps({"arena_bytes": arena, "counted_bytes": counted}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
