"""The constants of an exported graph: reading, adding and merging them. A constant is a
parameter or buffer that a `get_attr` node reads. Names are unique, so one layer's weight can't
overwrite another's.
"""

import operator
from typing import Any

import torch
from torch import Tensor, fx, nn


def constant_of(graph: fx.GraphModule, node: fx.Node) -> Tensor:
    """The tensor that a `get_attr` node reads."""
    value: Tensor = operator.attrgetter(str(node.target))(graph)
    return value


def is_constant(node: Any) -> bool:
    """Whether a node reads a tensor of the graph."""
    return isinstance(node, fx.Node) and node.op == "get_attr"


def add_constant(graph: fx.GraphModule, name: str, value: Tensor) -> fx.Node:
    """A node that reads a new buffer or, for an `nn.Parameter`, a new parameter. It is inserted at
    the graph's insertion point. Raises `ValueError` if the name is taken.
    """
    if hasattr(graph, name):
        raise ValueError(f"the graph already has a constant '{name}'")
    if isinstance(value, nn.Parameter):
        graph.register_parameter(name, value)
    else:
        graph.register_buffer(name, value)
    return graph.graph.get_attr(name)


def free_name(graph: fx.GraphModule, stem: str) -> str:
    """An unused constant name: `stem`, with a number appended if necessary."""
    stem = stem.replace(".", "_")
    name, number = stem, 1
    while hasattr(graph, name):
        name, number = f"{stem}_{number}", number + 1
    return name


def replace_constant(
    graph: fx.GraphModule, old: object, user: fx.Node, value: Tensor, suffix: str = "bias"
) -> fx.Node:
    """A new constant before `user`, named after `old` if that is given."""
    stem = str(old.target) if isinstance(old, fx.Node) else f"{user.name}_{suffix}"
    plain = value.clone().detach()
    with graph.graph.inserting_before(user):
        node = add_constant(
            graph,
            free_name(graph, f"{stem}_folded"),
            nn.Parameter(plain) if value.is_floating_point() else plain,
        )
    node.meta["val"] = _without_data(user, value)
    return node


def _without_data(user: fx.Node, value: Tensor) -> Tensor:
    """`value` as a fake tensor of the graph."""
    example = user.meta.get("val")
    while isinstance(example, (tuple, list)):
        example = example[0]
    fake: Tensor = example.fake_mode.from_tensor(value, static_shapes=True)  # type: ignore[union-attr]
    return fake


def own_constants(graph: fx.GraphModule) -> None:
    """Give every use of a shared constant its own node and constant. Each use of a shared layer has
    its own input, and therefore its own bias scale and correction.
    """
    used: set[str] = set()
    for node in list(graph.graph.nodes):
        if not is_constant(node):
            continue
        for user in list(node.users):
            if str(node.target) not in used:
                used.add(str(node.target))
                continue
            value = constant_of(graph, node)
            with graph.graph.inserting_before(user):
                own = add_constant(
                    graph,
                    free_name(graph, f"{node.target}_of_{user.name}"),
                    nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad)
                    if isinstance(value, nn.Parameter)
                    else value.clone(),
                )
            own.meta.update(node.meta)
            user.replace_input_with(node, own)
    graph.recompile()


def merge_equal_weights(graph: fx.GraphModule) -> None:
    """Merge equal constants, such as the integer weights, scales and biases of a layer that is used
    twice, into one."""
    first: dict[tuple[Any, ...], fx.Node] = {}
    for node in list(graph.graph.nodes):
        if not is_constant(node):
            continue
        value = constant_of(graph, node)
        if value.numel() < 2 or value.dtype is torch.bfloat16:
            continue
        key = (value.dtype, tuple(value.shape), value.detach().numpy().tobytes())
        if key in first and first[key].target != node.target:
            node.target = first[key].target
        first.setdefault(key, node)
    graph.recompile()
