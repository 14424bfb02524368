"""Which integers a model's inputs may hold: the sizes of the tables that they index."""

from collections.abc import Mapping

from edgekd.formats.graph import Graph, Op

TABLES: Mapping[str, tuple[int, int]] = {
    "Gather": (0, 1), "GATHER": (0, 1), "EMBEDDING_LOOKUP": (1, 0),
}  # fmt: skip
"""Operators that look rows up, with the positions of the table and of the indices."""

AXES = {"Gather": "axis", "GATHER": "Axis"}

MOVING = frozenset((
    "Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Transpose", "Flatten", "Expand",
    "Gather", "Slice", "Split", "GATHER", "SLICE", "STRIDED_SLICE", "UNPACK",
    "CAST", "RESHAPE", "SQUEEZE", "EXPAND_DIMS", "TRANSPOSE", "BROADCAST_TO",
))  # fmt: skip
"""Operators that pass every index on as it is, or some of them: the columns of a table of ids."""


def index_bounds(graph: Graph) -> dict[str, tuple[int, int]]:
    """The least and the largest index of each input that indexes a constant table, by the input's
    name: 0 to the size of the smallest such table, less one."""
    source = {graph.tensors[key].name: {key} for key in graph.inputs if key in graph.tensors}
    sizes: dict[str, int] = {}
    for op in graph.ops:
        for name, carriers in source.items():
            if op.op in MOVING and op.inputs and op.inputs[0] in carriers:
                carriers.update(op.outputs)
            size = _table_size(graph, op, carriers)
            if size:
                sizes[name] = min(size, sizes.get(name, size))
    return {name: (0, size - 1) for name, size in sizes.items()}


def _table_size(graph: Graph, op: Op, carriers: set[str]) -> int:
    """How many rows the table has that this operator reads with such indices, or 0."""
    table, index = TABLES.get(op.op, (0, 0))
    if table == index or max(table, index) >= len(op.inputs) or op.inputs[index] not in carriers:
        return 0
    shape = graph.tensors[op.inputs[table]].shape if op.inputs[table] in graph.tensors else None
    axis = int(op.attributes.get(AXES.get(op.op, ""), 0))
    if not shape or not -len(shape) <= axis < len(shape):
        return 0
    return max(shape[axis], 0)
