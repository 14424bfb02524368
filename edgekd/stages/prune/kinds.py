"""The kinds of layers whose channels can be removed, and the layout of their weights."""

from typing import Any

from torch import nn

from edgekd.network.conv1d import is_linear_by_columns

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
KERNELS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
RECURRENT = (nn.RNNBase, nn.RNNCellBase)


def recurrent_weights(layer: nn.Module) -> list[str]:
    """The names of the matrices of a recurrent layer; (gates x hidden, inputs) each."""
    return [name for name, _ in layer.named_parameters(recurse=False) if "weight" in name]


def is_kernel(layer: nn.Module) -> bool:
    """Whether a layer computes channels as weighted sums of its inputs."""
    return isinstance(layer, KERNELS) or is_linear_by_columns(layer)


def makes_in_columns(layer: nn.Module) -> bool:
    """Whether dimension 1 of the weight, not 0, makes the outputs."""
    return isinstance(layer, TRANSPOSED) or is_linear_by_columns(layer)


def group_count(layer: Any) -> int:
    """The number of groups of a convolution; 1 for other layers."""
    return int(getattr(layer, "groups", 1)) if isinstance(layer, KERNELS) else 1


def goes_by_groups(layer: Any) -> bool:
    """Whether whole groups of a grouped convolution are removed: if one side has one channel per
    group."""
    groups = group_count(layer)
    if groups == 1:
        return False
    rows = layer.in_channels if isinstance(layer, TRANSPOSED) else layer.out_channels
    return bool(layer.weight.shape[1] == 1 or rows == groups)
