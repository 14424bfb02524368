"""How large TensorFlow Lite Micro's arena has to be, measured with the micro runtime itself."""

from functools import partial
from importlib.metadata import version
from pathlib import Path

from edgekd.errors import ToolError
from edgekd.formats.tflite import read_tflite
from edgekd.installed import has_module
from edgekd.processes import run_json_module
from edgekd.values.measurement import Measurement, unavailable

TIME_LIMIT_S = 120.0
DEVICE = "the micro runtime on this machine"

_unavailable = partial(unavailable, "memory_bytes", device=DEVICE)


def measure_arena(model: Path, limit_s: float = TIME_LIMIT_S) -> Measurement:
    """`memory_bytes`: the smallest arena, to 16 bytes, in which the model runs and gives the same
    outputs as in a large one.

    `conditions` has the count of the runtime's allocator. The arena is measured on this machine,
    whose pointers have 8 bytes; a 32-bit core needs a little less, never more. Unavailable, with
    the reason, without tflite-micro or if the model does not run. Raises `InputError` for a damaged
    file.
    """
    if not has_module("tflite_micro"):
        return _unavailable("tflite-micro is not installed: pip install 'edgekd[tflm]'")
    foreign = [op for op in read_tflite(model).counts if op.startswith("CUSTOM")]
    if foreign:
        return _unavailable(f"tflite-micro on this machine has no {', '.join(foreign)}")
    try:
        sizes = run_json_module("edgekd.firmware.micro_runs", model, limit_s, "tflite-micro")
    except ToolError as error:
        return _unavailable(error.message)
    return Measurement(
        metric="memory_bytes",
        value=float(sizes["arena_bytes"]),
        kind="measured",
        device=DEVICE,
        protocol="the smallest arena in which it runs with the same outputs, to 16 bytes",
        conditions={
            "tflite-micro": version("tflite-micro"),
            "pointer_bytes": "8",
            "counted_by_its_allocator": str(sizes["counted_bytes"]),
        },
    )
