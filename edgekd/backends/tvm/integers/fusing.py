"""Which layers are computed together with the sum that reads them, in one kernel."""

from collections.abc import Sequence

from torch import fx

from edgekd.backends.tvm.integers import steps
from edgekd.backends.tvm.integers.reading import InFloat
from edgekd.quant.rewrite import DEQUANTIZE


def awaited_layers(graph: fx.GraphModule, parts: Sequence[steps.Step | InFloat]) -> frozenset[str]:
    """The layers whose results only one sum of tensors of equal shapes reads; of two in one sum the
    later, so that the other is there."""
    places = {
        part.result.name: place
        for place, part in enumerate(parts)
        if isinstance(part, steps.Weighted) and _read_once(graph, part.result.name)
    }
    awaited = set()
    for part in parts:
        if not isinstance(part, steps.Arithmetic) or part.kind != "add":
            continue
        sides = [part.left, part.right]
        if any(side.shape != part.result.shape for side in sides) or sides[0] == sides[1]:
            continue
        able = [side.name for side in sides if side.name in places]
        if able:
            awaited.add(max(able, key=places.__getitem__))
    return frozenset(awaited)


def _read_once(graph: fx.GraphModule, name: str) -> bool:
    """Whether a quantized tensor is dequantized for one operator alone."""
    node = next(node for node in graph.graph.nodes if node.name == name)
    readers = [user for each in node.users for user in each.users]
    return all(each.target in DEQUANTIZE for each in node.users) and len(readers) == 1
