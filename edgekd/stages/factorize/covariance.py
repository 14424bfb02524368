"""Second moments of a layer's inputs over the calibration samples."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.values.tree import Tree, chunks

BATCH = 32


@dataclass
class Moments:
    """E[p p^T] of the inputs that a layer's weights multiply. `patches` is over (i kh kw) for
    convolutions and over the features for linear layers, `columns` over (i kh) for the vertical
    half of a spatial split, `channels` over (i). Uncentred, because the mean of the inputs
    contributes to the output. In double precision.
    """

    patches: Tensor
    columns: Tensor | None = None
    channels: Tensor | None = None
    count: int = 0


def input_moments(
    module: nn.Module, layers: Mapping[str, nn.Module], x: Tree
) -> dict[str, Moments]:
    """The moments of the named layers' inputs, over all samples and positions."""
    sums: dict[str, Moments] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
            values = inputs[0].detach()
            moment = _conv(layer, values) if isinstance(layer, nn.Conv2d) else _linear(values)
            if name in sums:
                _add(sums[name], moment)
            else:
                sums[name] = moment

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(watch(name)))
        for part in chunks(x, BATCH):
            module(part)
    for moments in sums.values():
        moments.patches /= moments.count
    return sums


def _linear(values: Tensor) -> Moments:
    flat = values.flatten(0, -2).double()
    return Moments(flat.T @ flat, count=len(flat))


def _conv(layer: nn.Conv2d, values: Tensor) -> Moments:
    padded = _padded(layer, values)
    patches = _patches(padded, layer)
    columns = _columns(patches, layer)
    flat = values.movedim(1, -1).flatten(0, -2).double()
    scale = len(patches) / max(1, len(flat))
    return Moments(patches.T @ patches, columns, flat.T @ flat * scale, len(patches))


def _padded(layer: nn.Conv2d, values: Tensor) -> Tensor:
    padding = layer._reversed_padding_repeated_twice
    mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
    return F.pad(values, padding, mode=mode) if any(padding) else values


def _patches(padded: Tensor, layer: nn.Conv2d) -> Tensor:
    """(B H' W', i kh kw) in double."""
    kernel: Any = layer.kernel_size
    unfolded = F.unfold(padded, kernel, dilation=layer.dilation, stride=layer.stride)
    return unfolded.movedim(1, -1).flatten(0, 1).double()


def _columns(patches: Tensor, layer: nn.Conv2d) -> Tensor:
    """The sum over the kernel's columns of the moments of (i kh): a spatial split sees each."""
    height, width = layer.kernel_size
    parts = patches.view(len(patches), -1, height, width).movedim(3, 1).flatten(2).flatten(0, 1)
    return parts.T @ parts / width


def _add(total: Moments, found: Moments) -> None:
    total.patches += found.patches
    total.count += found.count
    for name in ("columns", "channels"):
        if getattr(found, name) is not None:
            getattr(total, name).add_(getattr(found, name))
