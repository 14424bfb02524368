"""One layer at a time: the float ONNX file with one layer quantized, and the quantized one with one
layer in float. Models are edited in memory, by the grids and weights of the quantized file."""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np

from edgekd.measure.diagnosis.pair import Grid, Pair, PairedLayer
from edgekd.measure.diagnosis.tensors import run_onnx, session_of


def final_outputs(model: Any, inputs: Sequence[np.ndarray]) -> np.ndarray:
    """All outputs of a model or file, flattened to (N, values)."""
    session = session_of(model)
    found = run_onnx(session, inputs, [end.name for end in session.get_outputs()])
    return np.concatenate([part.reshape(len(part), -1).astype(np.float64) for part in found], 1)


def quantized_alone(model: Any, layers: Sequence[PairedLayer]) -> Any:
    """The float model with these layers quantized: their weights and outputs, and inputs that are
    no other layer's output."""
    changed = copy.deepcopy(model)
    for layer in layers:
        _set_weight(changed, layer.floating.place, 1, layer.quantized.weight)
        if layer.input_grid is not None and layer.owns_input:
            node = _node(changed, layer.floating.place)
            node.input[0] = _on_grid(changed, node.input[0], layer.input_grid, layer.name)
        if layer.output_grid is not None:
            _reroute(changed, layer.floating_output, layer.output_grid, layer.name)
    return _sorted(changed)


def restored(model: Any, pair: Pair, layers: Sequence[PairedLayer]) -> Any:
    """The quantized model (quantize and dequantize operators around float ones) with these layers
    in float: their weights, and no grid for their output, nor for an input that is no other layer's
    output."""
    changed = copy.deepcopy(model)
    for layer in layers:
        place = layer.quantized.place
        _set_weight(changed, place, 1, layer.floating.weight)
        bias = layer.floating.bias
        node = _node(changed, place)
        if bias is not None and len(node.input) > 2:
            node.input[2] = _constant(changed, bias)
        if layer.owns_input:
            node.input[0] = _before_grid(changed, node.input[0])
        _free_output(changed, pair, layer)
    return _sorted(changed)


def in_16_bits(model: Any, pair: Pair, layers: Sequence[PairedLayer]) -> Any:
    """The quantized model without the grids of what these layers read and write, which 16 bits are
    as good as; their weights stay as they are."""
    changed = copy.deepcopy(model)
    for layer in layers:
        node = _node(changed, layer.quantized.place)
        if layer.owns_input:
            node.input[0] = _before_grid(changed, node.input[0])
        read = [one.input[0] for one in changed.graph.node if node.input[0] in one.output]
        for writer in pair.layers:
            if writer.quantized_output in read:
                _free_output(changed, pair, writer)
        _free_output(changed, pair, layer)
    return _sorted(changed)


def _free_output(changed: Any, pair: Pair, layer: PairedLayer) -> None:
    """Let everything that reads a layer's output read it before its grid."""
    node, behind = _node(changed, layer.quantized.place), layer.quantized_output
    writer = next((n for n in changed.graph.node if behind in n.output), None)
    if writer is None or writer.op_type != "QuantizeLinear":
        return
    source = writer.input[0]
    if source in node.output:
        source = _activated(changed, pair, layer, source)
    for reader in list(changed.graph.node):
        if reader.op_type == "DequantizeLinear" and reader.input[0] == behind:
            _replace(changed, reader.output[0], source)


def _activated(model: Any, pair: Pair, layer: PairedLayer, key: str) -> str:
    """A layer's output behind the activation that the quantized file leaves to the grid's ends."""
    import onnx

    kinds = {op.op for op in pair.floating.ops if layer.floating_output in op.outputs}
    if not kinds & {"Relu", "Clip"} or layer.output_grid is None:
        return key
    name = f"edgekd_{len(model.graph.node)}"
    high = layer.output_grid.high if "Clip" in kinds else float(np.finfo(np.float32).max)
    ends = [_scalar(model, 0.0), _scalar(model, high)]
    model.graph.node.append(onnx.helper.make_node("Max", [key, ends[0]], [f"{name}_low"]))
    model.graph.node.append(onnx.helper.make_node("Min", [f"{name}_low", ends[1]], [name]))
    return name


def is_editable(pair: Pair) -> bool:
    """Whether both files are ONNX."""
    paths = (pair.floating_path, pair.quantized_path)
    return all(path.suffix.lower() == ".onnx" for path in paths)


def operators(model: Any) -> list[Any]:
    """The nodes that count as operators, in order: all but constants."""
    return [node for node in model.graph.node if node.op_type != "Constant"]


def _node(model: Any, place: int) -> Any:
    """The node that was the operator at that place before any edit, which marks it."""
    return next(node for node in model.graph.node if node.doc_string == f"edgekd {place}")


def marked(model: Any) -> Any:
    """The model whose nodes know their place, so that edits don't move them."""
    for place, node in enumerate(operators(model)):
        node.doc_string = f"edgekd {place}"
    return model


def _set_weight(model: Any, place: int, at: int, weight: np.ndarray) -> None:
    node = _node(model, place)
    stored = weight
    if node.op_type == "ConvTranspose":
        stored = weight.swapaxes(0, 1)
    transposed = any(one.name == "transB" and one.i for one in node.attribute)
    if node.op_type == "MatMul" or (node.op_type == "Gemm" and not transposed):
        stored = weight.T
    node.input[at] = _constant(model, stored)


def _constant(model: Any, values: np.ndarray) -> str:
    from onnx import numpy_helper

    name = f"edgekd_constant_{len(model.graph.initializer)}"
    array = np.ascontiguousarray(values, np.float32)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def _on_grid(model: Any, key: str, grid: Grid, label: str) -> str:
    """A tensor rounded to a grid: clipping does what integers of any width do."""
    import onnx

    low, high = _scalar(model, grid.low), _scalar(model, grid.high)
    step, name = _scalar(model, grid.scale), f"edgekd_{len(model.graph.node)}"
    nodes = [
        ("Max", [key, low], "a"), ("Min", [f"{name}_a", high], "b"),
        ("Div", [f"{name}_b", step], "c"), ("Round", [f"{name}_c"], "d"),
        ("Mul", [f"{name}_d", step], "e"),
    ]  # fmt: skip
    for kind, inputs, suffix in nodes:
        made = onnx.helper.make_node(kind, inputs, [f"{name}_{suffix}"], name=f"{name}_{suffix}")
        model.graph.node.append(made)
    return f"{name}_e"


def _scalar(model: Any, value: float) -> str:
    return _constant(model, np.asarray(value))


def _reroute(model: Any, key: str, grid: Grid, label: str) -> None:
    """Let everything that reads a tensor, outputs of the model included, read it on its grid."""
    known = {node.name + node.output[0] for node in model.graph.node}
    readers = list(model.graph.node)
    is_end = any(end.name == key for end in model.graph.output)
    if is_end:
        source = f"{key}_edgekd_source"
        for node in readers:
            node.output[:] = [source if name == key else name for name in node.output]
            node.input[:] = [source if name == key else name for name in node.input]
        made = _on_grid(model, source, grid, label)
        model.graph.node[-1].output[0] = key
        assert made
    else:
        made = _on_grid(model, key, grid, label)
        for node in readers:
            if node.name + node.output[0] in known:
                node.input[:] = [made if name == key else name for name in node.input]


def _before_grid(model: Any, key: str) -> str:
    """The float tensor that a dequantize operator gives back, if it is one."""
    writers = {name: node for node in model.graph.node for name in node.output}
    dequantize = writers.get(key)
    if dequantize is None or dequantize.op_type != "DequantizeLinear":
        return key
    quantize = writers.get(dequantize.input[0])
    return quantize.input[0] if quantize and quantize.op_type == "QuantizeLinear" else key


def _replace(model: Any, old: str, new: str) -> None:
    import onnx

    for node in model.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
    for end in model.graph.output:
        if end.name == old:
            for node in model.graph.node:
                if old in node.output:
                    node.output[:] = [f"{old}_unused" for _ in node.output]
            model.graph.node.append(onnx.helper.make_node("Identity", [new], [old]))


def _sorted(model: Any) -> Any:
    """The nodes so that each comes after those whose values it reads."""
    known = {one.name for one in (*model.graph.initializer, *model.graph.input)} | {""}
    left, ordered = list(model.graph.node), []
    while left:
        ready = [node for node in left if all(name in known for name in node.input)]
        if not ready:  # a name from outside the graph
            ready = left[:1]
        ordered += ready
        known |= {name for node in ready for name in node.output}
        taken = {id(node) for node in ready}
        left = [node for node in left if id(node) not in taken]
    copies = [copy.deepcopy(node) for node in ordered]
    del model.graph.node[:]
    model.graph.node.extend(copies)
    return model
