"""Checks a QDQ ONNX file against TensorRT's rules of explicit quantization.

Source: NVIDIA, "Working with Quantized Types" and "Explicit Quantization"
(docs.nvidia.com/deeplearning/tensorrt, inference-library): quantization is symmetric and in signed
8 bits, activations have one scale, weights one or one for each output channel. The parser refuses
a DequantizeLinear of int32 biases ("only activation types allowed as input to this layer",
onnx/onnx-tensorrt issue 850), so biases have to be float.
"""

from collections.abc import Mapping

from edgekd.formats.graph import Graph, Op, Tensor

# The axis of a weight that counts output channels; a Gemm's depends on transB.
CHANNEL_AXIS: Mapping[str, int] = {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}


def quantization_faults(graph: Graph) -> list[str]:
    """Each rule of explicit quantization that a file breaks, by the node that breaks it."""
    readers = _readers(graph)
    faults = []
    for op in graph.ops:
        if op.op == "QuantizeLinear":
            faults += _scale_faults(op, graph.tensors[op.outputs[0]], graph)
        elif op.op == "DequantizeLinear":
            source = graph.tensors[op.inputs[0]]
            if is_bias(op, graph):
                faults.append(f"{op.name}: the int32 bias '{source.name}' has to be float")
                continue
            faults += _scale_faults(op, source, graph)
            faults += _axis_faults(op, source, readers.get(op.outputs[0], []))
    return faults


def is_bias(op: Op, graph: Graph) -> bool:
    """Whether a DequantizeLinear restores a stored int32 bias."""
    source = graph.tensors[op.inputs[0]]
    return source.dtype == "int32" and source.constant_bytes is not None


def quantized_ops(graph: Graph) -> int:
    """How many operators have every computed or weight input restored from 8 bits."""
    restored = {op.outputs[0] for op in graph.ops if op.op == "DequantizeLinear"}
    weighted = (*CHANNEL_AXIS, "Gemm")
    return sum(
        1 for op in graph.ops if op.op in weighted and all(key in restored for key in op.inputs[:2])
    )


def _readers(graph: Graph) -> dict[str, list[tuple[Op, int]]]:
    readers: dict[str, list[tuple[Op, int]]] = {}
    for op in graph.ops:
        for position, key in enumerate(op.inputs):
            readers.setdefault(key, []).append((op, position))
    return readers


def _scale_faults(op: Op, tensor: Tensor, graph: Graph) -> list[str]:
    faults = []
    dtype = _integer_type(op, tensor, graph)
    if dtype != "int8":
        faults.append(f"{op.name}: '{tensor.name}' is {dtype}, and only int8 is symmetric")
    if any(tensor.zero_points):
        worst = max(tensor.zero_points, key=abs)
        faults.append(f"{op.name}: '{tensor.name}' has the zero point {worst}, not 0")
    if not tensor.scales:
        faults.append(f"{op.name}: the scale of '{tensor.name}' is not a constant")
    elif any(not scale > 0 for scale in tensor.scales):
        faults.append(f"{op.name}: '{tensor.name}' has a scale that is not above 0")
    if len(tensor.scales) > 1 and tensor.constant_bytes is None:
        faults.append(f"{op.name}: the activation '{tensor.name}' has {len(tensor.scales)} scales")
    return faults


def _integer_type(op: Op, tensor: Tensor, graph: Graph) -> str:
    """The stored type: that of the zero point, where the file does not declare the tensor's."""
    if len(op.inputs) > 2 and op.inputs[2]:
        return graph.tensors[op.inputs[2]].dtype
    return tensor.dtype


def _axis_faults(op: Op, tensor: Tensor, readers: list[tuple[Op, int]]) -> list[str]:
    """Weights with many scales have them along the output channels of what reads them."""
    if len(tensor.scales) < 2 or tensor.constant_bytes is None or not tensor.shape:
        return []
    rank = len(tensor.shape)
    faults = []
    for reader, position in readers:
        if position != 1:
            continue
        wanted = CHANNEL_AXIS.get(reader.op)
        if reader.op == "Gemm":
            wanted = 0 if reader.attributes.get("transB", 0) else 1
        if wanted is not None and tensor.axis % rank != wanted % rank:
            faults.append(
                f"{op.name}: the scales of '{tensor.name}' lie along axis {tensor.axis}, "
                f"but {reader.op} has its output channels along {wanted % rank}"
            )
    return faults
