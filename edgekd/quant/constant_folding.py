"""Folds what an exported graph computes from constants alone.

That is more than operators whose inputs are constants: `torch.full_like(x, 8)` and `y.type_as(x)`
read the size or the type of `x` and none of its values, `stride.item()` is a number, and the parts
of `torch.meshgrid` are tensors of their own. Detection heads build their anchors of these.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant.constants import add_constant, constant_of, free_name, is_constant

aten = torch.ops.aten

_MOST_GROWTH = 2**20
"""The most elements that folding may add: an expanded constant is better left to the runtime."""

_NOT_COMPUTED = ("aten::rand", "aten::randn", "aten::bernoulli", "aten::dropout", "aten::empty")

_UNREAD = {
    aten.type_as.default: 1,
    aten.new_full.default: 0,
    aten.new_zeros.default: 0,
    aten.new_ones.default: 0,
    aten.full_like.default: 0,
    aten.zeros_like.default: 0,
    aten.ones_like.default: 0,
}
"""Operators that read none of an input's values, and the number of that input."""


def compute_constants(graph: fx.GraphModule) -> None:
    """Fold every operator that reads only constants into its result. A weight that `forward`
    computes (masked, normalized, transposed, or built by `torch.arange` and the like) becomes a
    plain weight.
    """
    for node in list(graph.graph.nodes):
        if _is_number(graph, node):
            _put_number(graph, node)
        elif _computable(node) and _static(node):
            _compute(graph, node)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _is_number(graph: fx.GraphModule, node: fx.Node) -> bool:
    """Whether a node reads a number from a buffer, which no training changes."""
    return (
        node.target is aten.item.default
        and is_constant(node.args[0])
        and not isinstance(constant_of(graph, node.args[0]), nn.Parameter)  # type: ignore[arg-type]
    )


def _put_number(graph: fx.GraphModule, node: fx.Node) -> None:
    number = constant_of(graph, node.args[0]).item()  # type: ignore[arg-type]
    for user in list(node.users):
        user.args, user.kwargs = fx.map_arg(
            (user.args, user.kwargs), lambda each: number if each is node else each
        )
    graph.graph.erase_node(node)


def _computable(node: fx.Node) -> bool:
    target = node.target
    if node.op != "call_function":
        return False
    if target is operator.getitem:
        return _computable(node.args[0])  # type: ignore[arg-type]
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if target._schema.is_mutable or target._schema.name.startswith(_NOT_COMPUTED):
        return False
    if target.namespace not in ("aten", "prims"):
        return False
    return all(is_constant(each) for each in _inputs(node))


def _inputs(node: fx.Node) -> list[fx.Node]:
    """The nodes whose values an operator reads."""
    number = _UNREAD.get(node.target)  # type: ignore[call-overload]
    if number is None:
        return node.all_input_nodes
    read: dict[fx.Node, None] = {}
    others = (node.args[:number], node.args[number + 1 :], node.kwargs)
    fx.map_arg(others, read.setdefault)
    return list(read)


def _static(node: fx.Node) -> bool:
    """Whether a node's result is one tensor of known size."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and all(isinstance(size, int) for size in value.shape)


def _compute(graph: fx.GraphModule, node: fx.Node) -> None:
    whole: Any = node.args[0] if node.target is operator.getitem else node
    inputs = [constant_of(graph, each) for each in _inputs(whole)]
    size = node.meta["val"].numel()
    if size > _MOST_GROWTH + sum(each.numel() for each in inputs):
        return
    with torch.no_grad():
        value = _result(graph, whole, node.meta["val"])
        value = value if whole is node else value[node.args[1]]
    constant = _computed(graph, node, whole, value.clone().contiguous())
    node.replace_all_uses_with(constant)
    graph.graph.erase_node(node)


def _result(graph: fx.GraphModule, node: fx.Node, like: Tensor) -> Any:
    """What an operator gives; an input whose values it does not read is of the size of `like`."""

    def value_of(argument: fx.Node) -> Any:
        if is_constant(argument):
            return constant_of(graph, argument)
        return torch.empty(like.shape, dtype=argument.meta["val"].dtype)

    arguments, keywords = fx.map_arg((node.args, node.kwargs), value_of)
    return node.target(*arguments, **keywords)  # type: ignore[operator]


def _computed(graph: fx.GraphModule, node: fx.Node, whole: fx.Node, value: Tensor) -> fx.Node:
    """The constant that replaces `node`, computed by `whole`: a parameter if it was computed from
    one."""
    inputs = _inputs(whole)
    trained = any(isinstance(constant_of(graph, each), nn.Parameter) for each in inputs)
    stem = next((str(each.target) for each in inputs), node.name)
    with graph.graph.inserting_before(node):
        constant = add_constant(
            graph,
            free_name(graph, f"{stem}_{node.name}"),
            nn.Parameter(value) if trained and value.is_floating_point() else value,
        )
    constant.meta["val"] = node.meta["val"]
    return constant
