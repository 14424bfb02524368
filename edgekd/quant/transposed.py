"""Transposed convolutions as convolutions: every output is a sum over the same few inputs, with
weights that depend on its place between two strides. A convolution computes all places as channels,
and a pixel shuffle moves them to where they belong.
"""

from typing import Any

import torch
from torch import Tensor, fx, nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant

aten = torch.ops.aten

_NAMES = ("stride", "padding", "output_padding", "groups", "dilation")


def can_be_convolution(node: fx.Node) -> bool:
    """Whether a transposed convolution has a constant weight, one stride for all dimensions, no
    dilation, and inputs of known size."""
    x, weight, *_ = node.args
    if not is_constant(weight) or not all(
        each is None or is_constant(each) for each in node.args[2:3]
    ):
        return False
    given = _given(node)
    sizes, kernel = _sizes(x), _sizes(weight)
    if not all(isinstance(size, int) for size in sizes):
        return False
    inside = all(p < k for p, k in zip(given["padding"], kernel, strict=True))
    return len(set(given["stride"])) == 1 and set(given["dilation"]) == {1} and inside


def as_convolution(graph: fx.GraphModule, node: fx.Node, clamp: fx.Node | None) -> fx.Node:
    """The same function of the same input, inserted at the graph's insertion point; `clamp` reads
    the result of `node` and is applied to the convolution's."""
    x: Any = node.args[0]
    given, kernel = _given(node), _sizes(node.args[1])
    stride = given["stride"][0]
    weight = constant_of(graph, node.args[1]).detach()  # type: ignore[arg-type]
    spans = [
        _span(size, k, stride, p, more)
        for size, k, p, more in zip(
            _sizes(x), kernel, given["padding"], given["output_padding"], strict=True
        )
    ]
    padding = [before for before, _, _, _ in spans]
    if any(before != behind for before, behind, _, _ in spans):
        pads = [end for before, behind, _, _ in reversed(spans) for end in (before, behind)]
        x = insert_call(graph, aten.constant_pad_nd.default, (x, pads, 0.0), node)
        padding = [0] * len(kernel)
    result = _convolved(graph, node, x, phases(weight, stride, given["groups"]), padding)
    if clamp is not None:
        result = insert_call(graph, clamp.target, (result, *clamp.args[1:]), clamp)
    result = _shuffled(graph, node, result, stride)
    for dim, (_, _, start, size) in enumerate(spans, 2):
        if (start, size) != (0, result.meta["val"].shape[dim]):
            result = insert_call(graph, aten.slice.Tensor, (result, dim, start, start + size), node)
    return result


def phases(weight: Tensor, stride: int, groups: int) -> Tensor:
    """The weight (out * stride^d, in / groups, ...) of the convolution, for the weight (in, out /
    groups, ...) of a transposed one in d dimensions. Its output channels are in the order that a
    pixel shuffle reads."""
    kernel = weight.shape[2:]
    reach = [-(-k // stride) for k in kernel]
    pads = [end for k, r in zip(reversed(kernel), reversed(reach), strict=True)
            for end in (0, r * stride - k)]  # fmt: skip
    padded = nn.functional.pad(weight, pads)
    inner, outer, rank = len(weight) // groups, weight.shape[1], len(kernel)
    split = padded.reshape(groups, inner, outer, *[n for r in reach for n in (r, stride)])
    reaches = [3 + 2 * dim for dim in range(rank)]
    places = [4 + 2 * dim for dim in range(rank)]
    turned = split.flip(reaches).permute(0, 2, *places, 1, *reaches)
    return turned.reshape(groups * outer * stride**rank, inner, *reach).contiguous()


def _span(
    size: int, kernel: int, stride: int, padding: int, more: int
) -> tuple[int, int, int, int]:
    """For one dimension: the rows of zeros before and behind the input, where the result starts in
    what the shuffle gives, and its size."""
    reach = -(-kernel // stride)
    length = (size - 1) * stride - 2 * padding + kernel + more
    first, last = padding // stride, (padding + length - 1) // stride
    return reach - 1 - first, max(0, last - (size - 1)), padding - first * stride, length


def _convolved(
    graph: fx.GraphModule, node: fx.Node, x: fx.Node, weight: Tensor, padding: list[int]
) -> fx.Node:
    rank, groups = len(padding), _given(node)["groups"]
    constants: list[fx.Node | None] = [
        insert_constant(graph, f"{node.name}_weight", nn.Parameter(weight), node), None
    ]  # fmt: skip
    if len(node.args) > 2 and node.args[2] is not None:
        bias = constant_of(graph, node.args[2]).detach()  # type: ignore[arg-type]
        repeated = bias.repeat_interleave(len(weight) // len(bias))
        constants[1] = insert_constant(graph, f"{node.name}_bias", nn.Parameter(repeated), node)
    target = aten.conv2d.default if rank == 2 else aten.conv1d.default
    return insert_call(
        graph, target, (x, *constants, [1] * rank, padding, [1] * rank, groups), node
    )


def _shuffled(graph: fx.GraphModule, node: fx.Node, x: fx.Node, stride: int) -> fx.Node:
    """Channels (out * stride^d) to rows and columns."""
    if stride == 1:
        return x
    shape = x.meta["val"].shape
    if len(shape) == 4:
        return insert_call(graph, aten.pixel_shuffle.default, (x, stride), node)
    outer, size = shape[1] // stride, shape[2]
    apart = insert_call(graph, aten.reshape.default, (x, [-1, outer, stride, size]), node)
    turned = insert_call(graph, aten.transpose.int, (apart, 2, 3), node)
    return insert_call(graph, aten.reshape.default, (turned, [-1, outer, size * stride]), node)


def _given(node: fx.Node) -> dict[str, Any]:
    """The arguments behind the bias, a list of as many numbers as there are dimensions each."""
    rank = len(_sizes(node.args[1]))
    given: dict[str, Any] = {
        "stride": 1, "padding": 0, "output_padding": 0, "groups": 1, "dilation": 1
    }  # fmt: skip
    given |= dict(zip(_NAMES, node.args[3:], strict=False)) | {
        key: value for key, value in node.kwargs.items() if key in _NAMES
    }
    for key in _NAMES:
        if key != "groups":
            values = given[key] if isinstance(given[key], (list, tuple)) else [given[key]]
            given[key] = list(values) * (rank if len(values) == 1 else 1)
    return given


def _sizes(node: Any) -> list[Any]:
    return list(node.meta["val"].shape[2:])
