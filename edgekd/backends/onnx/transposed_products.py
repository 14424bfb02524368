"""Keeps ONNX Runtime from crashing where it loads matrix products of transposed halves.

Version 1.31 wants to move a transpose of fp16 values behind the cast that it inserts before a
matrix product in float32. Where the transpose leaves the last dimension in its place and its input
has an fp16 kernel (a cast, a layer norm, a concatenation), the process dies as it loads the file.
"""

from typing import Any

_SHAPE = "edgekd.same_shape"


def part_transposes(model: Any) -> None:
    """Put a reshape to the same shape, which costs nothing, between a transpose and the matrix
    products that read it."""
    from onnx import AttributeProto, TensorProto, helper

    graph = model.graph
    turned = {
        node.output[0]: list(attribute.ints)
        for node in graph.node
        if node.op_type == "Transpose"
        for attribute in node.attribute
        if attribute.name == "perm" and attribute.type == AttributeProto.INTS
    }
    nodes: list[Any] = []
    parted: dict[str, str] = {}
    for node in graph.node:
        for index, name in enumerate(node.input if node.op_type == "MatMul" else ()):
            if name not in turned or turned[name][-1] != len(turned[name]) - 1:
                continue
            if name not in parted:
                parted[name] = f"{name}.parted"
                shape = f"{_SHAPE}.{len(turned[name])}"
                inputs = [name, shape]
                nodes.append(helper.make_node("Reshape", inputs, [parted[name]], parted[name]))
                if all(each.name != shape for each in graph.initializer):
                    # A size of 0 is that of the input.
                    zeros = [0] * len(turned[name])
                    stored = helper.make_tensor(shape, TensorProto.INT64, [len(zeros)], zeros)
                    graph.initializer.append(stored)
            node.input[index] = parted[name]
        nodes.append(node)
    nodes = [type(node).FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
