"""Fused attention, written so that the ONNX exporter can take it apart."""

import copy
from typing import Any

import torch
from torch import fx, nn

aten = torch.ops.aten


def with_settled_attention(module: nn.Module) -> nn.Module:
    """The module, or a copy in which the values of fused attention have one layout.

    PyTorch's fused kernel lays them out in another order than the operators that the exporter
    replaces it by, so what it traced as a view after them is none.
    """
    if not any(_attentions(part) for part in module.modules()):
        return module
    settled = copy.deepcopy(module)
    for part in settled.modules():
        for node in _attentions(part):
            _settle(node)
    return settled


def _settle(attention: fx.Node) -> None:
    """Copy the values of an attention into the order of their dimensions."""
    users = list(attention.users)
    with attention.graph.inserting_after(attention):
        keys: dict[str, Any] = {"memory_format": torch.contiguous_format}
        copied = attention.graph.call_function(aten.clone.default, (attention,), keys)
    copied.meta["val"] = attention.meta["val"]
    for user in users:
        user.replace_input_with(attention, copied)
    attention.graph.owning_module.recompile()  # type: ignore[union-attr]


def _attentions(part: nn.Module) -> list[fx.Node]:
    if not isinstance(part, fx.GraphModule):
        return []
    wanted = aten.scaled_dot_product_attention.default
    return [node for node in part.graph.nodes if node.target is wanted]
