"""Dead channels, planted in a network so that cutting them must change nothing."""

import copy

import torch
from torch import nn

from edgekd.stages.prune.groups import Group


def with_dead_units(
    module: nn.Module, groups: list[Group], share: float = 1 / 3
) -> tuple[nn.Module, dict[str, list[int]]]:
    """The network with a share of each group's units giving zero, and those units' channels."""
    dead, gone = copy.deepcopy(module), {}
    generator = torch.Generator().manual_seed(1)
    for group in groups:
        if not group.can_go:
            continue
        count = max(1, int(len(group.units) * share))
        chosen = torch.randperm(len(group.units), generator=generator)[:count].tolist()
        gone[group.name] = sorted(channel for unit in chosen for channel in group.units[unit])
        for member in group.members:
            if member.axis == "out":
                pairs = zip(member.indices, member.roots, strict=True)
                rows = [index for index, root in pairs if root in gone[group.name]]
                _kill(dead.get_submodule(member.layer), rows)
        _kill_biases(dead, group, set(chosen))
    return dead, gone


def _kill_biases(module: nn.Module, group: Group, dead: set[int]) -> None:
    """Those of layers that share their weight with another, too, which are no members."""
    for part in group.slices:
        if part.parameter.endswith("bias"):
            bias = module.get_parameter(part.parameter)
            pairs = zip(part.indices, part.units, strict=True)
            bias.data[[index for index, unit in pairs if unit in dead]] = 0


def _kill(layer: nn.Module, rows: list[int]) -> None:
    with torch.no_grad():
        if isinstance(layer, nn.ConvTranspose2d):
            width, inputs = layer.weight.shape[1], layer.in_channels // layer.groups
            for row in rows:
                first = row // width * inputs
                layer.weight[first : first + inputs, row % width] = 0
        else:
            layer.weight[rows] = 0
        if layer.bias is not None:
            layer.bias[rows] = 0
