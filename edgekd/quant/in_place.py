"""Replaces in-place operators by those that return their result, where nothing else can see the
tensor that is overwritten.

`ExportedProgram.run_decompositions` does so for any network, by tracing it anew, which takes
several times as long as the export. The activations after convolutions don't need that.
"""

from typing import Any

import torch
from torch import fx

from edgekd.quant import ops

aten = torch.ops.aten

_POINTWISE = (
    "add", "sub", "mul", "div", "relu", "relu6", "hardtanh", "silu", "mish", "elu", "celu", "selu",
    "leaky_relu", "sigmoid", "tanh", "hardswish", "hardsigmoid", "clamp", "clamp_min", "clamp_max",
)  # fmt: skip


def _overloads(name: str) -> set[Any]:
    packet = getattr(aten, name)
    return {getattr(packet, overload) for overload in packet.overloads()}


_RESULTS: dict[Any, Any] = {
    operator: getattr(getattr(aten, name), operator._overloadname)
    for name in _POINTWISE
    if hasattr(aten, f"{name}_")
    for operator in _overloads(f"{name}_")
    if operator._overloadname in getattr(aten, name).overloads()
}
"""Each in-place operator, and the one that computes the same into a new tensor."""

_FRESH = {
    *ops.WEIGHTED,
    *_RESULTS.values(),
    aten.conv_transpose2d.input,
    aten.batch_norm.default,
    aten.layer_norm.default,
    aten.group_norm.default,
    aten.max_pool2d.default,
    aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default,
    aten.cat.default,
    aten.matmul.default,
    aten.bmm.default,
    aten.addmm.default,
    aten.mean.dim,
}
"""Operators that never return one of their inputs or a view of it."""


_DROPOUTS = {aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default}


def without_in_place(graph: fx.Graph) -> bool:
    """Replace the in-place operators of a graph in evaluation mode. False, with the graph half
    changed, if another value may share memory with what one of them overwrites."""
    for node in list(graph.nodes):
        if node.target in _DROPOUTS:  # which returns its input itself
            node.replace_all_uses_with(node.args[0])
            graph.erase_node(node)
        if not _is_in_place(node):
            continue
        if node.target not in _RESULTS or not _is_alone(node):
            return False
        _replace(node)
    return True


def _is_in_place(node: fx.Node) -> bool:
    """Whether an operator changes one of its inputs."""
    target = node.target
    return isinstance(target, torch._ops.OpOverload) and target._schema.is_mutable


def _is_alone(node: fx.Node) -> bool:
    """Whether only operators that copy have read the value that `node` overwrites."""
    changed: Any = node.args[0]
    if not isinstance(changed, fx.Node) or changed.target not in _FRESH:
        return False
    readers = [user for user in changed.users if user is not node and user < node]
    floats = {
        each.meta["val"].dtype
        for each in node.all_input_nodes
        if isinstance(each.meta.get("val"), torch.Tensor)
    }
    return all(reader.target in _FRESH for reader in readers) and len(floats) == 1


def _replace(node: fx.Node) -> None:
    """Let `node` return its result; whoever reads the overwritten value afterwards reads that."""
    changed: Any = node.args[0]
    node.target = _RESULTS[node.target]
    changed.replace_all_uses_with(node, delete_user_cb=lambda user: user > node)
