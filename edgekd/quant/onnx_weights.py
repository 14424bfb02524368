"""Narrow weights in an ONNX file: DequantizeLinear of INT8, INT4 or INT2 codes, Cast of BFLOAT16.
ONNX Runtime 1.31 runs all of them; for matrix products it keeps the codes packed in memory
(MatMulNBits), and it dequantizes the weights of convolutions in each run.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.errors import ToolError
from edgekd.quant.weight_only import Stored

TWO_BITS_OPSET = 25
"""The first opset with INT2, the type of ternary and binary weights."""


def opset_for(stored: Sequence[Stored], usual: int) -> int:
    """The opset that supports the types of these weights."""
    return max(usual, TWO_BITS_OPSET) if any(each.limit == 1 for each in stored) else usual


def store_narrow(model: Any, stored: Sequence[Stored], where: str) -> None:
    """Replace the float initializers of these weights by their narrow form, in place. A weight is
    found by its values, since exporters rename and transpose. Raises `ToolError` for one that is
    not in the file.
    """
    from onnx import numpy_helper

    graph = model.graph
    floats = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
    for number, each in enumerate(stored):
        name, transposed = _place_of(each.value.numpy(), floats, where)
        made, nodes = _stored(f"narrow_{number}", name, each, transposed)
        for tensor in list(graph.initializer):
            if tensor.name == name:
                graph.initializer.remove(tensor)
        floats.pop(name)
        graph.initializer.extend(made)
        for position, node in enumerate(nodes):
            graph.node.insert(position, node)
    if opset_for(stored, 0):
        model.opset_import[0].version = opset_for(stored, 0)
        model.ir_version = max(model.ir_version, 13)


def _place_of(value: Any, floats: dict[str, Any], where: str) -> tuple[str, bool]:
    for name, found in floats.items():
        if found.dtype != np.float32:
            continue
        if found.shape == value.shape and np.array_equal(found, value):
            return name, False
        if value.ndim == 2 and found.shape == value.T.shape and np.array_equal(found, value.T):
            return name, True
    raise ToolError(f"a weight of shape {value.shape} is not in the exported file", where=where)


def _stored(stem: str, name: str, each: Stored, transposed: bool) -> tuple[list[Any], list[Any]]:
    """The initializers, and the nodes that compute the tensor `name` from them."""
    from onnx import TensorProto, helper

    if each.codes is None:
        value = each.value.numpy().T if transposed else each.value.numpy()
        import ml_dtypes

        raw = np.ascontiguousarray(value).astype(ml_dtypes.bfloat16).view(np.uint16)
        tensor = helper.make_tensor(
            f"{stem}_bf16", TensorProto.BFLOAT16, value.shape, raw.tobytes(), raw=True
        )
        return [tensor], [helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT)]
    if each.centroids is not None:
        return _picked(stem, name, each, transposed)
    return _dequantized(stem, name, each, transposed)


def _picked(stem: str, name: str, each: Stored, transposed: bool) -> tuple[list[Any], list[Any]]:
    """Gather from the centroids; ONNX Runtime folds it once, when it loads the file."""
    from onnx import TensorProto, helper, numpy_helper

    assert each.codes is not None
    assert each.centroids is not None
    codes = each.codes.numpy().T if transposed else each.codes.numpy()
    tensors = [
        numpy_helper.from_array(np.ascontiguousarray(codes), f"{stem}_index"),
        numpy_helper.from_array(each.centroids.numpy(), f"{stem}_centroids"),
    ]
    wide = f"{stem}_wide"
    return tensors, [
        helper.make_node("Cast", [tensors[0].name], [wide], to=TensorProto.INT32),
        helper.make_node("Gather", [tensors[1].name, wide], [name], axis=0),
    ]


def _dequantized(
    stem: str, name: str, each: Stored, transposed: bool
) -> tuple[list[Any], list[Any]]:
    from onnx import helper, numpy_helper

    assert each.codes is not None
    assert each.scales is not None
    codes, scales = each.codes.numpy(), each.scales.numpy()
    shape = each.value.shape
    axis, attributes = 1, {"block_size": codes.shape[1] // scales.shape[1]}
    if scales.shape[1] == 1:  # one scale a channel
        scales, axis, attributes = scales[:, 0], 0, {}
        codes = codes.reshape(shape)
    if transposed:
        codes, scales, axis = codes.T, scales.T, 1 - axis
    tensors = [
        _packed(f"{stem}_codes", codes, each.limit),
        numpy_helper.from_array(np.ascontiguousarray(scales), f"{stem}_scales"),
    ]
    inputs = [tensor.name for tensor in tensors]
    if tuple(codes.shape) == tuple(shape) or transposed:
        return tensors, [
            helper.make_node("DequantizeLinear", inputs, [name], axis=axis, **attributes)
        ]
    flat = f"{stem}_flat"
    tensors.append(numpy_helper.from_array(np.array(shape, dtype=np.int64), f"{stem}_shape"))
    return tensors, [
        helper.make_node("DequantizeLinear", inputs, [flat], axis=axis, **attributes),
        helper.make_node("Reshape", [flat, f"{stem}_shape"], [name]),
    ]


def _packed(name: str, codes: Any, limit: int) -> Any:
    """The codes in the smallest type that holds them, packed into bytes below eight bits."""
    from onnx import TensorProto, helper, numpy_helper

    if limit == 127:
        return numpy_helper.from_array(np.ascontiguousarray(codes), name)
    kind = TensorProto.INT4 if limit == 7 else TensorProto.INT2
    return helper.make_tensor(name, kind, codes.shape, codes.flatten().tolist())
