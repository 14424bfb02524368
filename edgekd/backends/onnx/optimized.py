"""What ONNX Runtime makes of a file: the operators of its optimized graph that compute in float."""

import tempfile
from pathlib import Path
from typing import Any

_BORDERS = {"QuantizeLinear", "DequantizeLinear"}
_IN_INTEGERS = ("QLinear", "QGemm", "QAttention", "MatMulInteger", "ConvInteger", "DynamicQuantize")
_FLOATS = {1, 10, 11, 16}
"""float, float16, double, bfloat16 in ONNX's numbers of types."""


def float_operators(path: Path) -> list[tuple[str, str]]:
    """(operator, name) of each operator that ONNX Runtime computes in float on a CPU, in order.

    Quantize and dequantize operators are the borders of what is in float, and don't count.
    """
    graph = optimized_graph(path)
    return _in_float(graph, _types(graph))


def optimized_graph(path: Path) -> Any:
    """The graph that ONNX Runtime runs on a CPU, with fused operators, as ONNX."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "optimized.onnx"
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = 1
        options.optimized_model_filepath = str(made)
        onnxruntime.InferenceSession(str(path), options, ["CPUExecutionProvider"])
        return onnx.load(str(made)).graph


def _types(graph: Any) -> dict[str, int]:
    """The types of inputs and constants by name."""
    found = {tensor.name: tensor.data_type for tensor in graph.initializer}
    return found | {value.name: value.type.tensor_type.elem_type for value in graph.input}


def _in_float(graph: Any, types: dict[str, int]) -> list[tuple[str, str]]:
    """`types` gets the types of all values: an operator gives what it reads first, but for those
    that change the type."""
    found: list[tuple[str, str]] = []
    for node in graph.node:
        given = [types.get(name, 0) for name in node.input if name]
        made = _made(node, given)
        types.update(dict.fromkeys(node.output, made))
        if node.op_type in _BORDERS or node.op_type.startswith(_IN_INTEGERS):
            continue
        if made in _FLOATS and node.op_type != "Constant":
            found.append((node.op_type, node.name))
    return found


def _made(node: Any, given: list[int]) -> int:
    import onnx

    kind = onnx.TensorProto
    if node.op_type == "QuantizeLinear":
        return given[2] if len(given) > 2 else int(kind.UINT8)
    if node.op_type == "Cast":
        return next(int(each.i) for each in node.attribute if each.name == "to")
    if node.op_type in ("Shape", "Size", "ArgMax", "ArgMin"):
        return int(kind.INT64)
    if node.op_type in (
        "Greater",
        "Less",
        "Equal",
        "GreaterOrEqual",
        "LessOrEqual",
        "IsInf",
        "Not",
    ):
        return int(kind.BOOL)
    if node.op_type == "Where":
        return given[1]
    floats = node.op_type == "DequantizeLinear" or node.op_type.endswith("ToFloat")
    if floats or (node.op_type == "QGemm" and len(given) < 9):
        return int(kind.FLOAT)
    if node.op_type.startswith(("QLinear", "QGemm")):  # some read a scale first
        return int(kind.UINT8)
    return given[0] if given else 0
