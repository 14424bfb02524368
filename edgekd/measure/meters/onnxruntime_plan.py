"""What ONNX Runtime allocates for activations, from its optimized graph and its profiler.

The optimizer fuses QDQ pairs and activations, so the file's own tensors would overstate memory; the
profile of one run has the size of each node's output. It runs in a separate process with a time
limit: `python -m edgekd.measure.meters.onnxruntime_plan MODEL SHAPES` prints one line of JSON.
SHAPES is a JSON object by input name; a size that is still open counts as 1.
"""

import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from edgekd.errors import EdgekdError, ToolError
from edgekd.formats.arena import arena_of_blocks
from edgekd.installed import has_module
from edgekd.processes import run_json_module
from edgekd.values.measurement import Measurement, unavailable

TIME_LIMIT_S = 60.0
PROTOCOL = (
    "lifetimes in ONNX Runtime's optimized graph, sizes from its profile of one run on this "
    "machine, placed greedily by size"
)

_unavailable = partial(unavailable, "planned_memory_bytes", device="host")


def measure_plan(
    model: Path, shapes: Mapping[str, Sequence[int]], limit_s: float = TIME_LIMIT_S
) -> Measurement:
    """`planned_memory_bytes` of an ONNX file as ONNX Runtime runs it here with inputs of these
    shapes. An estimate; unavailable with the reason if the file does not run."""
    if not has_module("onnxruntime"):
        return _unavailable("onnxruntime is not installed: pip install 'edgekd[onnx]'")
    try:
        module, sizes = "edgekd.measure.meters.onnxruntime_plan", json.dumps(shapes)
        found = run_json_module(module, model, limit_s, "onnxruntime", sizes)
    except ToolError as error:
        return _unavailable(error.message)
    return Measurement(
        metric="planned_memory_bytes",
        value=float(found["bytes"]),
        kind="estimated",
        device="host",
        protocol=PROTOCOL,
        conditions={"onnxruntime": version("onnxruntime")},
    )


def planned_bytes(model: Path, folder: Path, shapes: Mapping[str, Sequence[int]]) -> int:
    """Run the model once with the profiler on, and plan memory for the nodes' outputs."""
    import onnxruntime as ort

    def session_of(path: Path, options: Any) -> Any:
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    optimizing, profiling = ort.SessionOptions(), ort.SessionOptions()
    optimized = folder / "optimized.onnx"
    optimizing.optimized_model_filepath = str(optimized)
    session_of(model, optimizing)
    graph = _named(optimized)
    profiling.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    profiling.enable_profiling = True
    profiling.profile_file_prefix = str(folder / "profile")
    session = session_of(optimized, profiling)
    feeds = {
        value.name: _zeros(value, shapes.get(value.name, value.shape))
        for value in session.get_inputs()
    }
    session.run(None, feeds)
    events = json.loads(Path(session.end_profiling()).read_text())
    sizes = {
        event["name"].removesuffix("_kernel_time"): int(event["args"]["output_size"])
        for event in events
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time")
    }
    given = sum(array.nbytes for array in feeds.values())
    return arena_of_blocks(_blocks(graph, sizes, given))


def _named(file: Path) -> Any:
    """The graph of a file with a name for each node: the profile refers to names, which many
    exporters leave out."""
    import onnx

    whole = onnx.load(file, load_external_data=False)
    for number, node in enumerate(whole.graph.node):
        node.name = f"{number}"
    onnx.save(whole, file)
    return whole.graph


def _zeros(value: Any, sizes: Sequence[Any]) -> Any:
    import numpy as np

    kind = value.type.removeprefix("tensor(").removesuffix(")")
    dtype = {"float": "float32", "double": "float64"}.get(kind, kind)
    shape = [size if isinstance(size, int) and size > 0 else 1 for size in sizes]
    return np.zeros(shape, dtype)


def _blocks(graph: Any, sizes: dict[str, int], given: int) -> list[tuple[int, int, int]]:
    """Bytes, first and last step of the inputs and of each node's output."""
    last: dict[str, int] = {}
    for step, node in enumerate(graph.node):
        last.update((name, step) for name in (*node.output, *node.input))
    last.update((value.name, len(graph.node)) for value in graph.output)
    ends = [last.get(value.name, 0) for value in graph.input]
    blocks = [(given, 0, max(ends, default=0))]
    for step, node in enumerate(graph.node):
        end = max((last[name] for name in node.output if name), default=step)
        blocks.append((sizes.get(node.name, 0), step, end))
    return blocks


def main(path: str, shapes: str) -> None:
    """Print the plan of one model."""
    with tempfile.TemporaryDirectory(prefix="edgekd-plan-") as folder:
        try:
            found = planned_bytes(Path(path), Path(folder), json.loads(shapes))
        except EdgekdError as error:
            sys.exit(str(error))
    sys.stdout.write(json.dumps({"bytes": found}) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
