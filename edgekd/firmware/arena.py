"""How large TensorFlow Lite Micro's arena has to be: tried out in the micro runtime itself.

The runtime is C++ that ends the process on a bad model, so it runs in one of its own:
`python -m edgekd.firmware.arena model.tflite` prints one line of JSON.
"""

import json
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from edgekd.errors import ToolError
from edgekd.formats.tflite import read_tflite
from edgekd.measurement import Measurement
from edgekd.processes import how_it_ended, run_tool

ALIGNMENT = 16
LARGEST = 1 << 30
TIME_LIMIT_S = 120.0
DEVICE = "the micro runtime on this machine"


def measure_arena(model: Path, limit_s: float = TIME_LIMIT_S) -> Measurement:
    """`memory_bytes`: the smallest arena in which the micro runtime allocates and runs the model.

    It is measured on this machine, whose pointers are 8 bytes; a 32-bit core needs a little less,
    never more. Unavailable, with the reason, without tflite-micro or if the model does not run.
    Raises `InputError` for a damaged file.
    """
    if not find_spec("tflite_micro"):
        return _unavailable("tflite-micro is not installed: pip install 'edgekd[tflm]'")
    foreign = [op for op in read_tflite(model).counts if op.startswith("CUSTOM")]
    if foreign:
        return _unavailable(f"tflite-micro on this machine has no {', '.join(foreign)}")
    argv = [sys.executable, "-m", "edgekd.firmware.arena", str(model.resolve())]
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-tflm-") as folder:
            log, code = run_tool(argv, Path(folder), limit_s, "tflite-micro", str(model))
    except ToolError as error:
        return _unavailable(error.message)
    lines = log.strip().splitlines()
    if code or not lines or not lines[-1].startswith("{"):
        last = lines[-1] if lines else "it said nothing"
        return _unavailable(f"tflite-micro failed ({how_it_ended(code)}): {last}")
    return Measurement(
        metric="memory_bytes",
        value=float(json.loads(lines[-1])["arena_bytes"]),
        kind="measured",
        device=DEVICE,
        protocol="the smallest arena in which it allocates and runs, to 16 bytes",
        conditions={"tflite-micro": version("tflite-micro"), "pointer_bytes": "8"},
    )


def _unavailable(reason: str) -> Measurement:
    return Measurement(
        metric="memory_bytes", value=None, kind="unavailable", device=DEVICE, reason=reason
    )


def smallest_arena(content: bytes) -> int:
    """The smallest arena, in steps of 16 bytes, found by doubling and then halving."""
    size = 1024
    while not _runs(content, size):
        size *= 2
        if size > LARGEST:
            raise ValueError("it does not run in an arena of 1 GiB either")
    low, high = size // 2, size  # too small, large enough
    while high - low > ALIGNMENT:
        middle = (low + high) // 2 // ALIGNMENT * ALIGNMENT
        low, high = (low, middle) if _runs(content, middle) else (middle, high)
    return high


def _runs(content: bytes, size: int) -> bool:
    import numpy as np
    from tflite_micro import runtime

    try:
        interpreter = runtime.Interpreter.from_bytes(content, arena_size=size)
        details = interpreter.get_input_details(0)
        interpreter.set_input(np.zeros(details["shape"], details["dtype"]), 0)
        interpreter.invoke()
    except RuntimeError:
        return False
    return True


def main(path: str) -> None:
    """Print the arena of one model."""
    sys.stdout.write(json.dumps({"arena_bytes": smallest_arena(Path(path).read_bytes())}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
