"""Looking up the rows of a constant table by indices of int32, as embeddings do."""

import math

from edgekd.firmware.graph import Array, Node
from edgekd.firmware.step import Step, about, weights_table


def _gather(node: Node) -> list[Step]:
    if node.option("Axis", 0) or node.options.get("BatchDims", 0):
        raise node.refuse("another axis than the first, or batch dimensions")
    return _looked_up(node, node.computed(0), _indices(node, 1))


def _embedding(node: Node) -> list[Step]:
    return _looked_up(node, node.computed(1), _indices(node, 0))


def _indices(node: Node, place: int) -> Array:
    indices = node.inputs[place] if place < len(node.inputs) else None
    if indices is None or indices.dtype != "int32" or indices.values is not None:
        raise node.refuse("its indices are not an input of int32")
    return indices


def _looked_up(node: Node, table: Array, indices: Array) -> list[Step]:
    output = node.output
    if table.values is None or not table.shape:
        raise node.refuse("its table is not constant")
    if table.grid != output.grid or output.shape != (*indices.shape, *table.shape[1:]):
        raise node.refuse(f"{table.shape} by {indices.shape} is not {output.shape} on its grid")
    fields = {
        "table": weights_table(table),
        "rows": table.shape[0],
        "width": math.prod(table.shape[1:]),
        "count": indices.elements,
    }
    return [Step("gather", fields, (indices,), output, about(node, indices))]


OPERATORS = {"GATHER": _gather, "EMBEDDING_LOOKUP": _embedding}
