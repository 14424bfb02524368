"""Prepares an ONNX file for TensorRT's parser."""

from pathlib import Path
from typing import Any

from edgekd.formats.onnx_steps import unfold_steps
from edgekd.store import write_beside
from edgekd.values.artifact import Artifact


def prepared_model(artifact: Artifact, folder: Path) -> Path:
    """The ONNX file for TensorRT's parser: stored int32 biases become float again.

    bias = int32 * scale is what DequantizeLinear would have computed, so nothing is lost.
    """
    import numpy as np
    import onnx
    from onnx import numpy_helper

    model = unfold_steps(onnx.load(str(artifact.path)))
    graph = model.graph
    constants = {one.name: one for one in graph.initializer}
    for node in list(graph.node):
        source = constants.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is None or source.data_type != onnx.TensorProto.INT32:
            continue
        scale = constants[node.input[1]]
        value = numpy_helper.to_array(source) * numpy_helper.to_array(scale).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(value.astype(np.float32), node.output[0]))
        graph.node.remove(node)
    _lower_opset(model)
    used = {name for node in graph.node for name in node.input} | {one.name for one in graph.output}
    for one in list(graph.initializer):
        if one.name not in used:
            graph.initializer.remove(one)
    path = folder / f"{artifact.path.stem}_tensorrt.onnx"
    write_beside(path, model.SerializeToString(deterministic=True))
    return path


def _lower_opset(model: Any) -> None:
    """Declare opset 20 in a file that declares 21 and uses nothing new in it.

    The parser of TensorRT 10.3, which JetPack 6 has, stops at 20 (unverified on a board). What 21
    added to the operators that 20 has are 4-bit types, and block_size and output_dtype of Q and DQ.
    """
    new = {"block_size", "output_dtype"}
    uses = any(one.name in new and one.i for node in model.graph.node for one in node.attribute)
    four_bits = any("INT4" in _type_name(one.data_type) for one in model.graph.initializer)
    if uses or four_bits:
        return
    for one in model.opset_import:
        if one.domain in ("", "ai.onnx") and one.version == 21:
            one.version = 20
    for node in model.graph.node:
        kept = [one for one in node.attribute if one.name not in new]
        if len(kept) != len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)


def _type_name(code: int) -> str:
    import onnx

    return str(onnx.TensorProto.DataType.Name(code))
