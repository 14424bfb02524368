"""Rewrites convolutions with `padding="same"` or `"valid"` as those with numbers.

LiteRT's converter doesn't take the words in one dimension.
"""

from typing import Any

import torch
from torch import fx

from edgekd.quant.inserting import insert_call
from edgekd.quant.ops import each_dimension

aten = torch.ops.aten

_NUMBERED: dict[Any, Any] = {
    aten.conv1d.padding: aten.conv1d.default,
    aten.conv2d.padding: aten.conv2d.default,
    aten.conv3d.padding: aten.conv3d.default,
}
_NAMES = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
_DEFAULTS: dict[str, Any] = {
    "bias": None, "stride": 1, "padding": "valid", "dilation": 1, "groups": 1
}  # fmt: skip


def rewrite_named_padding(graph: fx.GraphModule, node: fx.Node) -> None:
    """Give a convolution numbers for its padding. Where `"same"` means one more at the end than at
    the beginning, a convolution over time is padded by an operator of its own, and one over an
    image keeps the word, which every backend has."""
    given = {**_DEFAULTS, **dict(zip(_NAMES, node.args, strict=False)), **node.kwargs}
    sizes = given["weight"].meta["val"].shape[2:]
    totals = _totals(given, sizes)
    x = given["input"]
    if any(total % 2 for total in totals):
        if len(totals) > 1:
            return
        before, after = totals[0] // 2, totals[0] - totals[0] // 2
        with graph.graph.inserting_before(node):
            x = insert_call(graph, aten.constant_pad_nd.default, (x, [before, after], 0.0), node)
        totals = [0]
    padding = [total // 2 for total in totals]
    shape = {name: each_dimension(given[name], len(sizes)) for name in ("stride", "dilation")}
    node.args = (
        x, given["weight"], given["bias"], shape["stride"], padding, shape["dilation"],
        given["groups"],
    )  # fmt: skip
    node.target, node.kwargs = _NUMBERED[node.target], {}


def _totals(given: dict[str, Any], sizes: Any) -> list[int]:
    """The rows of padding in each dimension, both ends together."""
    if given["padding"] == "valid":
        return [0] * len(sizes)
    dilation = each_dimension(given["dilation"], len(sizes))
    return [step * (size - 1) for step, size in zip(dilation, sizes, strict=True)]
