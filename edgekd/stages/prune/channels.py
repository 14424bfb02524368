"""Which channels belong together, and their removal from every layer that they run through.

Torch-Pruning's dependency graph (Fang et al. 2023, arXiv:2301.12900) follows a channel through
additions, concatenations, depthwise and grouped convolutions. Attention heads are ours.
"""

import copy
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from edgekd.errors import InputError, first_line
from edgekd.stages.prune.heads import PROJECTIONS, attentions, remove_heads

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Axis = Literal["out", "in"]


@dataclass(frozen=True)
class Member:
    """One side of one layer: its channel `indices[k]` goes with the root's channel `roots[k]`."""

    layer: str
    axis: Axis
    indices: tuple[int, ...]
    roots: tuple[int, ...]


@dataclass(frozen=True)
class Group:
    """Channels that live and die together, under the name of the layer that makes them.

    `units` are what can be removed: single channels, one channel of each group of a grouped
    convolution, or a head. `reason` says why nothing can be removed, where that is so; `output`
    marks the channels of the network's own output, which always stay.
    """

    name: str
    channels: int
    units: tuple[tuple[int, ...], ...]
    members: tuple[Member, ...]
    reason: str = ""
    output: bool = False
    heads: bool = False

    @property
    def layers(self) -> set[str]:
        """The layers that make these channels."""
        return {member.layer for member in self.members if member.axis == "out"}


def channel_groups(module: nn.Module, example: Tensor) -> list[Group]:
    """Every group of coupled channels, in the order of the network; nothing is changed.

    A group that can't be cut has the reason in it; so have those without which the network would
    not run, found by removing a unit of each from a copy and running it.
    """
    inner = _attention_groups(module)
    hidden = {name for group in inner for name in group.layers}
    traced = [group for group in _traced_groups(module, example) if not group.layers & hidden]
    groups = [*traced, *inner]
    order = {name: number for number, (name, _) in enumerate(module.named_modules())}
    groups.sort(key=lambda group: order[group.name])
    return _tried(module, example, groups)


def remove_channels(
    module: nn.Module, example: Tensor, removals: Mapping[str, Sequence[int]]
) -> nn.Module:
    """A copy without the channels (of the root layer, by its name) that `removals` lists.

    Raises `InputError` where the smaller network does not run or gives outputs of another shape.
    """
    smaller = copy.deepcopy(module)
    blocks = attentions(smaller)
    for name in removals.keys() & blocks.keys():
        size = blocks[name].head_size
        remove_heads(blocks[name], sorted({channel // size for channel in removals[name]}))
    rest = {name: sorted(gone) for name, gone in removals.items() if name not in blocks and gone}
    try:
        if rest:
            graph = _dependency_graph(smaller, example)
        for name, gone in rest.items():
            layer = smaller.get_submodule(name)
            prune = graph.get_pruner_of_module(layer).prune_out_channels
            graph.get_pruning_group(layer, prune, gone).prune()
        for part in smaller.modules():
            part.training = False
        with torch.no_grad():
            shape, expected = smaller(example).shape, module(example).shape
    except Exception as error:  # whatever the tracer or the network's own forward raises
        text = f"the network does not run without these channels: {first_line(error)}"
        raise InputError(text, where=", ".join(removals)) from None
    if shape != expected:
        text = f"without these channels the output is {tuple(shape)}, not {tuple(expected)}"
        raise InputError(text, where=", ".join(removals))
    return smaller


def _attention_groups(module: nn.Module) -> list[Group]:
    groups = []
    for name, block in attentions(module).items():
        size, width = block.head_size, block.heads * block.head_size
        every = tuple(range(width))
        units = tuple(tuple(range(h * size, (h + 1) * size)) for h in range(block.heads))
        members = [Member(f"{name}.{part}", "out", every, every) for part in _PROJECTIONS]
        members.append(Member(f"{name}.output", "in", every, every))
        groups.append(Group(name, width, units, tuple(members), heads=True))
    return groups


_PROJECTIONS = PROJECTIONS[:3]


def _dependency_graph(module: nn.Module, example: Tensor) -> Any:
    import torch_pruning

    class SortedLayerNorm(torch_pruning.pruner.function.LayernormPruner):  # type: ignore[misc]
        """Keeps the order of what stays, which Torch-Pruning 1.6's own leaves to a set's."""

        def prune_out_channels(self, layer: nn.LayerNorm, idxs: Sequence[int]) -> nn.LayerNorm:
            kept = sorted(set(range(layer.normalized_shape[-1])) - set(idxs))
            for name in ("weight", "bias"):
                values = getattr(layer, name, None)
                if values is not None:
                    setattr(layer, name, nn.Parameter(values.detach()[..., kept].clone()))
            layer.normalized_shape = (*layer.normalized_shape[:-1], len(kept))
            return layer

        prune_in_channels = prune_out_channels

    for parameter in module.parameters():
        parameter.requires_grad_(True)
    for part in module.modules():
        part.training = False
    with torch.enable_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch_pruning.DependencyGraph().build_dependency(
            module,
            example_inputs=example,
            customized_pruners={nn.LayerNorm: SortedLayerNorm()},
            verbose=False,
        )


def _traced_groups(module: nn.Module, example: Tensor) -> Iterator[Group]:
    traced = copy.deepcopy(module)
    try:
        graph = _dependency_graph(traced, example)
    except Exception as error:  # a network that autograd can't trace
        raise InputError(f"its channels can't be followed: {error}", where="model") from None
    names = {part: name for name, part in traced.named_modules()}
    roots = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)
    for found in graph.get_all_groups(root_module_types=roots):
        root = found[0].dep.target.module
        channels = graph.get_out_channels(root)
        members, reason, output = [], "", False
        blocks = 1
        for item in found.items:
            node, layer = item.dep.target, item.dep.target.module
            only_in = isinstance(layer, roots) and graph.is_in_channel_pruning_fn(item.dep.handler)
            only_in = only_in and not graph.is_out_channel_pruning_fn(item.dep.handler)
            if not node.outputs and not only_in:
                output = True
            if not isinstance(layer, nn.Module) or layer not in names:
                continue
            if isinstance(layer, (*CONVOLUTIONS, *TRANSPOSED, nn.GroupNorm)):
                count, why = _blocks(layer, item.idxs, channels)
                blocks = math.lcm(blocks, count)
                reason = reason or (f"{names[layer]} {why}" if why else "")
            axis: Axis = "in" if only_in else "out"
            members.append(
                Member(names[layer], axis, tuple(item.idxs), tuple(map(int, item.root_idxs)))
            )
        if channels % blocks:
            reason = reason or f"{channels} channels don't divide into {blocks} groups"
            blocks = 1
        stride = channels // blocks
        units = tuple(tuple(range(start, channels, stride)) for start in range(stride))
        name = _maker(traced, members, channels) or names[root]
        yield Group(name, channels, units, tuple(members), reason, output)


def _maker(module: nn.Module, members: Sequence[Member], channels: int) -> str:
    """The first layer in the network that makes exactly these channels, in the same order."""
    every = tuple(range(channels))
    made = {m.layer for m in members if m.axis == "out" and m.indices == m.roots == every}
    for name, part in module.named_modules():
        kernel = isinstance(part, (*CONVOLUTIONS, *TRANSPOSED, nn.Linear))
        if name in made and kernel and getattr(part, "groups", 1) == 1:
            return str(name)
    return ""


def _blocks(layer: Any, indices: Sequence[int], channels: int) -> tuple[int, str]:
    """Into how many blocks a grouped layer divides the channels, and why they can't be cut."""
    count = layer.num_groups if isinstance(layer, nn.GroupNorm) else layer.groups
    if count == 1:
        return 1, ""
    if isinstance(layer, nn.GroupNorm):
        whole = layer.num_channels
    else:
        if count == layer.in_channels == layer.out_channels:
            return 1, ""  # depthwise: its channels go one by one
        if count in (layer.in_channels, layer.out_channels):
            return 1, "has as many groups as channels on one side only"
        whole = len(indices)
    if list(indices) != list(range(channels)) or whole != channels:
        return 1, f"divides channels of several layers into {count} groups"
    return count, ""


def _tried(module: nn.Module, example: Tensor, groups: list[Group]) -> list[Group]:
    """The groups, those without which the network would not run given the reason."""
    cut = {
        group.name: group.units[-1]
        for group in groups
        if not group.reason and not group.output and len(group.units) > 1
    }
    if not _fails(module, example, cut):
        return groups
    return [
        replace(group, reason=_fails(module, example, {group.name: cut[group.name]}))
        if group.name in cut
        else group
        for group in groups
    ]


def _fails(module: nn.Module, example: Tensor, cut: Mapping[str, Sequence[int]]) -> str:
    if not cut:
        return ""
    try:
        remove_channels(module, example, cut)
    except InputError as error:
        return error.message
    return ""
