"""Rewrites operators without integer kernels as operators that have them in every runtime.

Each rewrite computes the same function in float, up to the order of sums:

- SiLU: x * sigmoid(x); hard sigmoid: relu6(x + 3) / 6; hard swish: x * hard sigmoid(x);
- a batch norm that is not behind a layer: a depthwise convolution with one weight per channel,
  which a per-channel grid stores exactly;
- a transposed convolution: a convolution to stride^2 times the channels and a pixel shuffle (Shi et
  al. 2016, "Is the deconvolution layer the same as a convolutional layer?");
- a mean over height and width that drops both: one that keeps them, and a reshape;
- an adaptive average: a mean, or pooling over each of its windows;
- a class token that is joined or picked: see `tokens`;
- a linear layer of sequences: a layer of rows, which has a bias in integers, between two reshapes;
- scaled dot-product attention: its products and its softmax;
- scores to which a mask of low numbers is added: scores that are -inf where they are masked;
- a softmax over one value: x * 0 + 1.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import fx, nn

from edgekd.quant import ops
from edgekd.quant.adaptive_average import averaged
from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.inserting import insert_call, insert_constant, replace_by
from edgekd.quant.masks import masked, masked_sum
from edgekd.quant.norm_steps import write_out_norms
from edgekd.quant.norms import norm_constants
from edgekd.quant.tokens import rewrite_tokens
from edgekd.quant.transposed import as_convolution, can_be_convolution

aten = torch.ops.aten


def decompose(graph: fx.GraphModule, strict: bool = False) -> None:
    """Rewrite every operator of a float graph that has an exact form with integer kernels; if
    `strict`, also those whose integer form costs accuracy."""
    rewrite_tokens(graph)
    if strict:
        write_out_norms(graph)
    for node in list(graph.graph.nodes):
        rewrite = _REWRITES.get(node.target) if node.op == "call_function" else None
        if rewrite is None:
            continue
        with graph.graph.inserting_before(node):
            replacement = rewrite(graph, node)
        if replacement is not None:
            replace_by(node, replacement)
    graph.graph.eliminate_dead_code()
    graph.recompile()


def _silu(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    (x,) = node.args
    gate = insert_call(graph, aten.sigmoid.default, (x,), node)
    return insert_call(graph, aten.mul.Tensor, (x, gate), node)


def _hard_sigmoid(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    shifted = insert_call(graph, aten.add.Tensor, (node.args[0], 3.0), node)
    clamped = insert_call(graph, aten.relu6.default, (shifted,), node)
    return insert_call(graph, aten.mul.Tensor, (clamped, 1.0 / 6.0), node)


def _hard_swish(graph: fx.GraphModule, node: fx.Node) -> fx.Node:
    gate = _hard_sigmoid(graph, node)
    return insert_call(graph, aten.mul.Tensor, (node.args[0], gate), node)


def _batch_norm(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A depthwise convolution of images and sequences, or a product and a sum of features."""
    x: Any = node.args[0]
    rank = x.meta["val"].dim() - 2
    constants = norm_constants(graph, node)
    if rank not in (0, 1, 2) or constants is None:
        return None
    scale, shift = constants
    if rank == 0:
        factor = insert_constant(graph, f"{node.name}_scale", nn.Parameter(scale[None]), node)
        scaled = insert_call(graph, aten.mul.Tensor, (x, factor), node)
        offset = insert_constant(graph, f"{node.name}_shift", nn.Parameter(shift[None]), node)
        return insert_call(graph, aten.add.Tensor, (scaled, offset), node)
    weights = nn.Parameter(scale.reshape(-1, *[1] * (rank + 1)))
    weight = insert_constant(graph, f"{node.name}_scale", weights, node)
    bias = insert_constant(graph, f"{node.name}_shift", nn.Parameter(shift), node)
    convolution = aten.conv2d.default if rank == 2 else aten.conv1d.default
    window = ([1] * rank, [0] * rank, [1] * rank, len(scale))
    return insert_call(graph, convolution, (x, weight, bias, *window), node)


def _transposed(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A clamp that alone reads the result is applied before the shuffle, as a layer's clamp."""
    if not can_be_convolution(node):
        return None
    clamp = _only_clamp(node)
    result = as_convolution(graph, node, clamp)
    _drop_clamp(node, clamp)
    return result


def _linear(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A layer of sequences as a layer of rows (N, in), whose bias runtimes add in integers."""
    x: Any = node.args[0]
    *inner, _ = x.meta["val"].shape[1:]
    if not inner or not is_constant(node.args[1]) or not all(isinstance(n, int) for n in inner):
        return None
    before, behind = x.meta["val"].shape[-1], node.meta["val"].shape[-1]
    clamp = _only_clamp(node)
    rows = insert_call(graph, aten.reshape.default, (x, [-1, before]), node)
    result = insert_call(graph, aten.linear.default, (rows, *node.args[1:]), node)
    if clamp is not None:
        result = insert_call(graph, clamp.target, (result, *clamp.args[1:]), clamp)
    result = insert_call(graph, aten.reshape.default, (result, [-1, *inner, behind]), node)
    _drop_clamp(node, clamp)
    return result


def _only_clamp(node: fx.Node) -> fx.Node | None:
    user = next(iter(node.users)) if len(node.users) == 1 else None
    return user if user is not None and user.target in ops.FUSED else None


def _softmax(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """`_softmax` stands for a softmax on a grid of its own, chosen by `prepare_graph` alone. Over
    one value it is 1, for which ONNX Runtime's integer kernel (1.31) gives 0."""
    axis: Any = node.args[1]
    if node.meta["val"].shape[axis] == 1:
        nothing = insert_call(graph, aten.mul.Tensor, (node.args[0], 0.0), node)
        return insert_call(graph, aten.add.Tensor, (nothing, 1.0), node)
    if node.target is aten.softmax.int:
        return None
    return insert_call(graph, aten.softmax.int, node.args[:2], node)


def _index(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """One constant list of places along one dimension is an `index_select`."""
    x, indices = node.args
    given = [(dim, each) for dim, each in enumerate(indices) if each is not None]  # type: ignore[arg-type]
    if len(given) != 1 or not is_constant(given[0][1]):
        return None
    dim, places = given[0]
    value = constant_of(graph, places)
    if value.dim() != 1 or value.dtype is torch.bool:
        return None
    return insert_call(graph, aten.index_select.default, (x, dim, places), node)


def _drop_clamp(node: fx.Node, clamp: fx.Node | None) -> None:
    if clamp is not None:
        clamp.replace_all_uses_with(node)
        clamp.graph.erase_node(clamp)


def _attention(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """(q * scale) k^T, the mask, softmax, times v."""
    q, k, v = node.args[:3]
    given = dict(zip(("attn_mask", "dropout_p", "is_causal"), node.args[3:], strict=False))
    given = {**given, **node.kwargs}
    if given.get("dropout_p") or given.get("enable_gqa"):
        return None
    scale: Any = given.get("scale")
    width = q.meta["val"].shape[-1]  # type: ignore[union-attr]
    factor = 1.0 / math.sqrt(width) if scale is None else float(scale)
    scaled = insert_call(graph, aten.mul.Tensor, (q, factor), node)
    turned = insert_call(graph, aten.transpose.int, (k, -2, -1), node)
    scores: fx.Node | None = insert_call(graph, aten.matmul.default, (scaled, turned), node)
    if given.get("attn_mask") is not None or given.get("is_causal"):
        assert scores is not None
        mask, causal = given.get("attn_mask"), bool(given.get("is_causal"))
        scores = masked(graph, node, scores, mask, causal)
    if scores is None:
        return None
    weights = insert_call(graph, aten.softmax.int, (scores, -1), node)
    weights = _softmax(graph, weights) or weights
    return insert_call(graph, aten.matmul.default, (weights, v), node)


def _spatial_mean(graph: fx.GraphModule, node: fx.Node) -> fx.Node | None:
    """A mean over height and width that drops both, as one that keeps them: the global average
    pooling of integer kernels."""
    x: Any = node.args[0]
    dims: Any = node.args[1] or ()
    keeps = bool(node.args[2]) if len(node.args) > 2 else bool(node.kwargs.get("keepdim"))
    images = x.meta["val"].dim() == 4 and sorted(dim % 4 for dim in dims) == [2, 3]
    if keeps or not images or node.kwargs.get("dtype"):
        return None
    pooled = insert_call(graph, aten.mean.dim, (x, [2, 3], True), node)
    return insert_call(graph, aten.reshape.default, (pooled, [-1, x.meta["val"].shape[1]]), node)


_REWRITES: dict[Any, Callable[[fx.GraphModule, fx.Node], fx.Node | None]] = {
    aten.add.Tensor: masked_sum,
    aten.silu.default: _silu,
    aten.silu_.default: _silu,
    aten.hardsigmoid.default: _hard_sigmoid,
    aten.hardsigmoid_.default: _hard_sigmoid,
    aten.hardswish.default: _hard_swish,
    aten.hardswish_.default: _hard_swish,
    aten.batch_norm.default: _batch_norm,
    aten.conv_transpose1d.default: _transposed,
    aten.conv_transpose2d.input: _transposed,
    aten.linear.default: _linear,
    aten.index.Tensor: _index,
    aten.mean.dim: _spatial_mean,
    aten.adaptive_avg_pool1d.default: averaged,
    aten.adaptive_avg_pool2d.default: averaged,
    aten._softmax.default: _softmax,
    aten.softmax.int: _softmax,
    aten.scaled_dot_product_attention.default: _attention,
}
