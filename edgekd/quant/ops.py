"""How the quantizer treats each ATen operator: with weights, on its own grid, or on its input's. An
operator in none of these tables stays in float, and the report names it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

aten = torch.ops.aten

WEIGHTED = {
    aten.conv1d.default,
    aten.conv1d.padding,
    aten.conv2d.default,
    aten.conv2d.padding,
    aten.linear.default,
}
"""Input, weight, bias: int8 times int8 into int32."""

FUSED = {
    aten.relu.default,
    aten.relu_.default,
    aten.relu6.default,
    aten.relu6_.default,
    aten.hardtanh.default,
    aten.hardtanh_.default,
    aten.clamp.default,
    aten.clamp_min.default,
}
"""Clamps that a kernel applies at no cost while it requantizes the layer before them."""

REGRID = aten.alias.default
"""Inserted where a value changes its grid; removed once the grids are known."""

SUMS = {aten.add.Tensor, aten.add_.Tensor, aten.sub.Tensor}

PRODUCTS = {aten.mul.Tensor, aten.mul_.Tensor}

FUSABLE = WEIGHTED | SUMS | PRODUCTS
"""Operators that a clamp can be fused to."""

FUNCTIONS = {
    aten.gelu.default,
    aten.elu.default,
    aten.celu.default,
    aten.selu.default,
    aten.mish.default,
    aten.softplus.default,
    aten.prelu.default,
    aten.abs.default,
    aten.neg.default,
    aten.exp.default,
    aten.sqrt.default,
}
"""Functions of one value between two grids. Runtimes have integer kernels for some of them, and
compute the others in float between two integer operators, which their backend's notes say."""

REGRIDDED = {
    aten.add.Tensor,
    aten.add_.Tensor,
    aten.sub.Tensor,
    aten.mul.Tensor,
    aten.mul_.Tensor,
    aten.mean.dim,
    aten.adaptive_avg_pool2d.default,
    aten.adaptive_avg_pool1d.default,
    aten.hardswish.default,
    aten.hardswish_.default,
    aten.hardsigmoid.default,
    aten.hardsigmoid_.default,
    aten.sigmoid.default,
    aten.sigmoid_.default,
    aten.tanh.default,
    aten.leaky_relu.default,
    aten.leaky_relu_.default,
    aten.matmul.default,
    aten.bmm.default,
    aten.softmax.int,
    aten._softmax.default,
    aten.alias.default,
    *FUNCTIONS,
}
"""Operators with quantized inputs and an output range of their own."""

SHARED = {
    aten.flatten.using_ints,
    aten.unflatten.int,
    aten.view.default,
    aten.reshape.default,
    aten.permute.default,
    aten.transpose.int,
    aten.movedim.int,
    aten.movedim.intlist,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.unsqueeze.default,
    aten.slice.Tensor,
    aten.select.int,
    aten.contiguous.default,
    aten.clone.default,
    aten.max_pool1d.default,
    aten.max_pool2d.default,
    aten.avg_pool1d.default,
    aten.avg_pool2d.default,
    aten.constant_pad_nd.default,
    aten.pad.default,
    aten.pixel_shuffle.default,
    aten.pixel_unshuffle.default,
    aten.channel_shuffle.default,
    aten.roll.default,
    aten.flip.default,
    aten.index_select.default,
    aten.reflection_pad1d.default,
    aten.reflection_pad2d.default,
    aten.replication_pad1d.default,
    aten.replication_pad2d.default,
    aten.expand.default,
    aten.upsample_nearest2d.vec,
    aten.upsample_bilinear2d.vec,
    aten.amax.default,
    aten.amin.default,
}
"""Operators whose output is on the input's grid: they compute nothing, or kernels require it
(pooling)."""

TAKING = {aten.slice.Tensor, aten.select.int, aten.index_select.default}
"""Operators that move a part of their input, which may have a smaller range."""

LOOKUPS = {aten.embedding.default}
"""Operators that pick rows of a constant, which are on its grid."""

CHOOSING = {aten.maximum.default, aten.minimum.default, aten.where.self}
"""Operators whose result is one of the two inputs, number by number."""

JOINED = {aten.cat.default} | CHOOSING
"""Operators whose inputs and output share one grid."""


def joined_by(node: fx.Node) -> list[Any]:
    """The values that an operator of `JOINED` reads."""
    if node.target is aten.where.self:
        return list(node.args[1:3])
    return list(node.args[:2]) if node.target in CHOOSING else list(node.args[0])  # type: ignore[arg-type]


FIXED = {
    aten.sigmoid.default: (1 / 256, -128),
    aten.sigmoid_.default: (1 / 256, -128),
    aten.softmax.int: (1 / 256, -128),
    aten.tanh.default: (1 / 128, 0),
}
"""Operators whose int8 output has one scale and zero point by TFLite's specification of int8
operators: their kernels compute for no other. A file with another is refused by some kernels and
wrong in others."""

SENSITIVE = {
    aten.linalg_vector_norm.default,
    aten.norm.ScalarOpt_dim,
    aten.var.correction,
    aten.std.correction,
    aten.rsqrt.default,
    aten.pow.Tensor_Scalar,
    aten.pow.Tensor_Tensor,
    aten.log.default,
    aten.reciprocal.default,
    aten.cumsum.default,
}
"""Parts of a normalization. They stay in float, as does what is computed from their results alone,
since they amplify the rounding error of their inputs."""


def name_of(node: fx.Node) -> str:
    """`aten.conv2d` for a node that calls `torch.ops.aten.conv2d.default`."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return str(target.overloadpacket)
    return str(target)


def each_dimension(value: int | Sequence[int], count: int) -> list[int]:
    """The number of each of `count` dimensions, where an argument may give one for all."""
    values = [value] if isinstance(value, int) else list(value)
    return values * count if len(values) == 1 else values
