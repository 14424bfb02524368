"""Adds operators and constants to an exported graph, with the metadata that later steps read."""

from typing import Any

from torch import Tensor, fx, nn

from edgekd.quant.constants import add_constant, free_name


def insert_call(
    graph: fx.GraphModule, target: Any, arguments: tuple[Any, ...], like: fx.Node
) -> fx.Node:
    """A call at the graph's insertion point. It belongs to the layer of `like`, and its value has
    the shape that the operator gives it."""
    node = graph.graph.call_function(target, arguments)
    values = fx.map_arg(arguments, lambda each: each.meta["val"])
    fake_mode = _example(like).fake_mode
    with fake_mode:
        node.meta.update({**like.meta, "val": target(*values)})
    return node


def insert_constant(graph: fx.GraphModule, stem: str, value: Tensor, like: fx.Node) -> fx.Node:
    """A constant at the graph's insertion point; a parameter stays one. `stem` begins its name."""
    if isinstance(value, nn.Parameter):
        value = nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
    node = add_constant(graph, free_name(graph, stem), value)
    node.meta["val"] = _example(like).fake_mode.from_tensor(value, static_shapes=True)
    return node


def replace_by(node: fx.Node, replacement: fx.Node) -> None:
    """Let every user of `node` read `replacement`, and remove `node`."""
    node.replace_all_uses_with(replacement, delete_user_cb=lambda user: user is not replacement)
    node.graph.erase_node(node)


def _example(node: fx.Node) -> Any:
    """A fake tensor of the node's."""
    value = node.meta["val"]
    while isinstance(value, (tuple, list)):
        value = value[0]
    return value
