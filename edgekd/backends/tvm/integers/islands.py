"""A stretch of operators in float as a Relax function, through TVM's own importer."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

from edgekd.backends.tvm.integers.graph import shape_of
from edgekd.backends.tvm.integers.reading import InFloat
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.export import quiet
from edgekd.quant.rewrite import DEQUANTIZE, is_weight


@dataclass(frozen=True)
class Island:
    """The nodes that it reads from outside and those that others read, with a module of it."""

    name: str
    module: fx.GraphModule
    inputs: tuple[fx.Node, ...]
    outputs: tuple[fx.Node, ...]

    def function(self) -> Any:
        """The Relax function: its inputs in order, one output or a tuple."""
        from edgekd.backends.tvm.lower import imported

        examples = tuple(_zeros(node) for node in self.inputs)
        with quiet():
            program = torch.export.export(self.module, examples)
        return imported(program)["main"]


def _zeros(node: fx.Node) -> torch.Tensor:
    source: Any = node
    while "val" not in source.meta:
        source = source.args[0]
    dtype = torch.float32 if node.target in DEQUANTIZE else source.meta["val"].dtype
    return torch.zeros(shape_of(node), dtype=dtype)


def island_of(graph: fx.GraphModule, part: InFloat) -> Island:
    """The stretch with its constants, dequantized ones as floats."""
    own = fx.Graph()
    root = nn.Module()
    copies: dict[fx.Node, fx.Node] = {}
    inputs = []
    for source in _sources(part):
        if is_constant(source) or is_weight(source):
            name = f"constant_{len(copies)}"
            root.register_buffer(name, _constant(graph, source))
            copies[source] = own.get_attr(name)
        else:
            inputs.append(source)
    for source in inputs:
        copies[source] = own.placeholder(source.name)
    for node in part.nodes:
        copies[node] = own.node_copy(node, lambda each: copies[each])
    outputs = tuple(
        node for node in part.nodes
        if any(user not in part.nodes for user in node.users) and "val" in node.meta
        and isinstance(node.meta["val"], torch.Tensor)
    )  # fmt: skip
    own.output(tuple(copies[node] for node in outputs))
    name = f"float_{part.nodes[0].name}"
    return Island(name, fx.GraphModule(root, own), tuple(inputs), outputs)


def _sources(part: InFloat) -> list[fx.Node]:
    inside = set(part.nodes)
    found = [each for node in part.nodes for each in node.all_input_nodes if each not in inside]
    return list(dict.fromkeys(found))


def _constant(graph: fx.GraphModule, node: fx.Node) -> torch.Tensor:
    if is_constant(node):
        return constant_of(graph, node).detach()
    given: tuple[Any, ...] = node.args
    arguments = [constant_of(graph, each) if is_constant(each) else each for each in given]
    target: Any = node.target
    return target(*arguments)  # type: ignore[no-any-return]
