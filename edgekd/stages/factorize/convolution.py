"""A 2-D convolution as two or three smaller ones.

- `spatial-svd`: (kh x 1) then (1 x kw), Jaderberg et al. 2014 (arXiv:1405.3866), scheme 2.
- `channel-svd`: the kernel onto fewer channels, then 1x1, Zhang et al. 2015 (arXiv:1505.06798).
- `tucker2`: 1x1, the kernel between fewer channels on both sides, 1x1, Kim et al. 2016
  (arXiv:1511.06530), by HOSVD.

Stride, padding, dilation and padding mode are distributed over the factors; grouped convolutions
can't be factorized.
"""

from typing import cast

import torch
from torch import Tensor, nn

from edgekd.stages.factorize.linear import root_of
from edgekd.stages.factorize.ranks import Method

Pair = tuple[int, int]


def matrix_of(layer: nn.Conv2d, method: Method) -> Tensor:
    """The matrix whose left singular vectors are kept: (o, i kh kw), or (kw o, i kh)."""
    weight = layer.weight.detach().double()
    if method == "spatial-svd":
        return weight.permute(3, 0, 1, 2).flatten(2).flatten(0, 1)
    return weight.flatten(1)


def full_ranks(layer: nn.Conv2d, method: Method) -> tuple[int, ...]:
    """The largest rank that each mode can have."""
    outputs, inputs, height, width = layer.weight.shape
    if method == "spatial-svd":
        return (min(inputs * height, width * outputs),)
    if method == "channel-svd":
        return (min(outputs, inputs * height * width),)
    return (min(outputs, inputs * height * width), min(inputs, outputs * height * width))


def methods_for(layer: nn.Conv2d) -> list[Method]:
    """The methods that can make this kernel smaller; a 1x1 kernel has no spatial split."""
    if tuple(layer.kernel_size) == (1, 1):
        return ["channel-svd"]
    if 1 in layer.kernel_size:
        return ["channel-svd", "tucker2"]
    return ["spatial-svd", "channel-svd", "tucker2"]


def conv_macs(
    layer: nn.Conv2d, method: Method, ranks: tuple[int, ...], before: Pair, after: Pair
) -> int:
    """Multiply-accumulates of the factors for one sample; `before`, `after` are (H, W)."""
    outputs, inputs, height, width = layer.weight.shape
    area = after[0] * after[1]
    if method == "spatial-svd":
        return ranks[0] * (inputs * height * after[0] * before[1] + width * outputs * area)
    if method == "channel-svd":
        return ranks[0] * area * (inputs * height * width + outputs)
    out_rank, in_rank = ranks
    core = out_rank * in_rank * height * width
    return in_rank * inputs * before[0] * before[1] + area * (core + out_rank * outputs)


def split_convolution(
    layer: nn.Conv2d, method: Method, left: Tensor, ranks: tuple[int, ...], right: Tensor | None
) -> nn.Sequential:
    """The factors in sequence; `left` comes from `basis`, `right` is Tucker-2's input side. `right`
    is a pair of (k, i) stacked to (2, k, i): the projection of the inputs, and the matrix that the
    kernel is multiplied with, whose product over the first rank rows is close to the identity.
    """
    kept = left[:, : ranks[0]]
    if method == "spatial-svd":
        return _spatial(layer, kept)
    if method == "channel-svd":
        return _channel(layer, kept)
    assert right is not None
    return _tucker(layer, kept, right[:, : ranks[1]])


def input_basis(layer: nn.Conv2d, moment: Tensor | None) -> tuple[Tensor, Tensor]:
    """Tucker-2's input side: (2, k, i) for `split_convolution`, and the singular values (k,).

    With X the kernel as (o kh kw, i) and R = C^(1/2): X R = U S V^T, the inputs are projected by
    V^T R^-1 and the kernel becomes X R V. Plainly R is the identity.
    """
    kernel = layer.weight.detach().double().permute(0, 2, 3, 1).flatten(0, 2)
    if moment is None:
        _, values, right = torch.linalg.svd(kernel, full_matrices=False)
        return torch.stack([right, right]), values
    root = root_of(moment.double())
    _, values, right = torch.linalg.svd(kernel @ root, full_matrices=False)
    inverse = torch.linalg.pinv(root, rtol=1e-7, hermitian=True)
    return torch.stack([right @ inverse, right @ root]), values


def _spatial(layer: nn.Conv2d, kept: Tensor) -> nn.Sequential:
    outputs, inputs, height, width = layer.weight.shape
    rank = kept.shape[1]
    stride, padding, dilation = _pairs(layer)
    first = nn.Conv2d(
        inputs, rank, (height, 1), (stride[0], 1), (padding[0], 0), (dilation[0], 1),
        bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip
    second = nn.Conv2d(
        rank, outputs, (1, width), (1, stride[1]), (0, padding[1]), (1, dilation[1]),
        bias=layer.bias is not None, padding_mode=layer.padding_mode,
    )  # fmt: skip
    vertical = kept.T @ matrix_of(layer, "spatial-svd")
    _fill(first, vertical.view(rank, inputs, height, 1))
    horizontal = kept.view(width, outputs, rank).permute(1, 2, 0).unsqueeze(2)
    _fill(second, horizontal, layer.bias)
    return nn.Sequential(first, second)


def _channel(layer: nn.Conv2d, kept: Tensor) -> nn.Sequential:
    outputs, inputs, height, width = layer.weight.shape
    rank = kept.shape[1]
    first = _shaped_like(layer, inputs, rank)
    second = nn.Conv2d(rank, outputs, 1, bias=layer.bias is not None)
    reduced = kept.T @ matrix_of(layer, "channel-svd")
    _fill(first, reduced.view(rank, inputs, height, width))
    _fill(second, kept[:, :, None, None], layer.bias)
    return nn.Sequential(first, second)


def _tucker(layer: nn.Conv2d, kept: Tensor, right: Tensor) -> nn.Sequential:
    outputs, inputs = layer.weight.shape[:2]
    out_rank, in_rank = kept.shape[1], right.shape[1]
    first = nn.Conv2d(inputs, in_rank, 1, bias=False)
    core = _shaped_like(layer, in_rank, out_rank)
    last = nn.Conv2d(out_rank, outputs, 1, bias=layer.bias is not None)
    weight = layer.weight.detach().double()
    _fill(first, right[0][:, :, None, None])
    _fill(core, torch.einsum("oihw,or,si->rshw", weight, kept, right[1]))
    _fill(last, kept[:, :, None, None], layer.bias)
    return nn.Sequential(first, core, last)


def _shaped_like(layer: nn.Conv2d, inputs: int, outputs: int) -> nn.Conv2d:
    stride, padding, dilation = _pairs(layer)
    return nn.Conv2d(
        inputs, outputs, cast(Pair, layer.kernel_size), stride, padding, dilation,
        bias=False, padding_mode=layer.padding_mode,
    )  # fmt: skip


def _pairs(layer: nn.Conv2d) -> tuple[Pair, Pair, Pair]:
    """Stride, padding and dilation as numbers; 'same' is only uneven for even kernels."""
    kernel, dilation = cast(Pair, layer.kernel_size), cast(Pair, layer.dilation)
    padding = layer.padding
    if isinstance(padding, str):
        reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        padding = (0, 0) if padding == "valid" else (reach[0] // 2, reach[1] // 2)
    return cast(Pair, layer.stride), cast(Pair, tuple(padding)), dilation


def unsupported(layer: nn.Conv2d) -> str:
    """Why a convolution can't be factorized, or an empty string."""
    if layer.groups > 1:
        return "depthwise" if layer.groups == layer.in_channels else f"{layer.groups} groups"
    if layer.padding == "same":
        reach = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        if any(each % 2 for each in reach):
            return "padding 'same' with an even kernel"
    return ""


def _fill(layer: nn.Conv2d, weight: Tensor, bias: Tensor | None = None) -> None:
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias is not None and layer.bias is not None:
            layer.bias.copy_(bias)
