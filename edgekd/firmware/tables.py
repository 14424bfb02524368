"""Tables of 256 values in a TFLite file, each as one operator.

TFLite has no operator that reads a table by an int8. edgekd writes CAST, ADD and GATHER instead:
the integer is moved to 0 and on, for each channel to the beginning of its own table.
"""

from collections import Counter
from dataclasses import replace

from edgekd.formats.graph import Graph, Op

TABLE = "TABLE"


def with_tables(graph: Graph) -> Graph:
    """The graph with one operator (the input, the offsets, the values) for each such chain whose
    inner tensors nothing else reads."""
    made = {key: op for op in graph.ops for key in op.outputs}
    reads = Counter(key for op in graph.ops for key in op.inputs)
    reads.update(graph.outputs)
    gone: set[str] = set()
    ops = []
    for op in reversed(graph.ops):
        chain = _chain(op, made)
        if any(key in gone for key in op.outputs):
            continue
        if chain is not None and all(reads[key] == 1 for each in chain for key in each.outputs):
            cast, add = chain
            gone |= {*cast.outputs, *add.outputs}
            offsets = next(key for key in add.inputs if key not in cast.outputs)
            inputs = (cast.inputs[0], offsets, op.inputs[0])
            op = Op(op.name, TABLE, inputs, op.outputs)
        ops.append(op)
    return replace(graph, ops=tuple(reversed(ops)))


def _chain(op: Op, made: dict[str, Op]) -> tuple[Op, Op] | None:
    """The CAST and the ADD before a GATHER, if that is where its indices come from."""
    if op.op != "GATHER" or len(op.inputs) != 2:
        return None
    add = made.get(op.inputs[1])
    if add is None or add.op != "ADD" or len(add.inputs) != 2:
        return None
    casts = [made[key] for key in add.inputs if key in made and made[key].op == "CAST"]
    return (casts[0], add) if len(casts) == 1 else None
