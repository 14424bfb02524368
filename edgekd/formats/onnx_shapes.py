"""Shapes that an ONNX file does not store, inferred by onnx in a separate process.

Shape inference is C++ code that a damaged file can crash, so it never runs in this process. Run as
a module with a path, this file prints a JSON table of name -> [data type, shape].
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from edgekd.errors import ToolError
from edgekd.formats.graph import Graph, Tensor
from edgekd.processes import run_json_module

TIME_LIMIT_S = 120


def with_shapes(graph: Graph, path: Path) -> Graph:
    """The graph with the shapes for one sample: an open batch is 1, missing shapes are inferred.

    Shapes that can't be inferred stay as they are.
    """
    if all(tensor.bytes is not None for tensor in graph.tensors.values()):
        return graph
    try:
        table = run_json_module("edgekd.formats.onnx_shapes", path, TIME_LIMIT_S, "onnx")
    except ToolError:
        return graph
    tensors = {key: _sized(key, tensor, table) for key, tensor in graph.tensors.items()}
    return replace(graph, tensors=tensors)


def _sized(key: str, tensor: Tensor, table: dict[str, tuple[str, list[int]]]) -> Tensor:
    if tensor.bytes is not None or key not in table:
        return tensor
    dtype, shape = table[key]
    return replace(tensor, dtype=dtype, shape=tuple(shape))


def inferred(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Data type and shape of every tensor that onnx can infer, for a batch of one."""
    import onnx

    from edgekd.formats.onnx_file import declared
    from edgekd.formats.onnx_steps import unfold_steps

    model = unfold_steps(onnx.load(str(path), load_external_data=False))
    for info in model.graph.input:
        for position, one in enumerate(info.type.tensor_type.shape.dim):
            if position == 0 and not one.HasField("dim_value"):
                one.Clear()
                one.dim_value = 1
    del model.graph.value_info[:]
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    graph = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    tensors = [declared(one) for one in (*graph.input, *graph.output, *graph.value_info)]
    return {
        one.name: (one.dtype, list(one.shape))
        for one in tensors
        if one.shape is not None and all(size >= 0 for size in one.shape)
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(inferred(Path(sys.argv[1]))))
