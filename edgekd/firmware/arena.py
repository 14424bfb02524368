"""How large TensorFlow Lite Micro's arena has to be, as the micro runtime itself has it."""

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

TIME_LIMIT_S = 120.0
DEVICE = "the micro runtime on this machine"


def measure_arena(model: Path, limit_s: float = TIME_LIMIT_S) -> Measurement:
    """`memory_bytes`: the smallest arena, to 16 bytes, in which the micro runtime runs the model
    and gives the outputs that it gives in a large one. `conditions` has what its allocator counts.

    It is measured on this machine, whose pointers are 8 bytes; a 32-bit core needs a little less,
    never more. Unavailable, with the reason, without tflite-micro or if the model does not run.
    Raises `InputError` for a damaged file.
    """
    if not find_spec("tflite_micro"):
        return _unavailable("tflite-micro is not installed: pip install 'edgekd[tflm]'")
    foreign = [op for op in read_tflite(model).counts if op.startswith("CUSTOM")]
    if foreign:
        return _unavailable(f"tflite-micro on this machine has no {', '.join(foreign)}")
    argv = [sys.executable, "-m", "edgekd.firmware.micro_runs", str(model.resolve())]
    try:
        with tempfile.TemporaryDirectory(prefix="edgekd-tflm-") as folder:
            log, code = run_tool(argv, Path(folder), limit_s, "tflite-micro", str(model))
    except ToolError as error:
        return _unavailable(error.message)
    lines = log.strip().splitlines()
    if code or not lines or not lines[-1].startswith("{"):
        last = lines[-1] if lines else "it said nothing"
        return _unavailable(f"tflite-micro failed ({how_it_ended(code)}): {last}")
    found = json.loads(lines[-1])
    return Measurement(
        metric="memory_bytes",
        value=float(found["arena_bytes"]),
        kind="measured",
        device=DEVICE,
        protocol="the smallest arena in which it allocates and gives the same outputs, to 16 bytes",
        conditions={
            "tflite-micro": version("tflite-micro"),
            "pointer_bytes": "8",
            "counted_by_its_allocator": str(found["counted_bytes"]),
        },
    )


def _unavailable(reason: str) -> Measurement:
    return Measurement(
        metric="memory_bytes", value=None, kind="unavailable", device=DEVICE, reason=reason
    )
