"""Removes indices from parameters and buffers, and updates their layers' sizes."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from edgekd.network.conv1d import is_linear_by_columns
from edgekd.stages.prune.kinds import (
    CONVOLUTIONS,
    RECURRENT,
    TRANSPOSED,
    goes_by_groups,
    recurrent_weights,
)
from edgekd.stages.prune.stored_sizes import outputs_of, resize_attention, resize_shapes

Removed = Mapping[tuple[str, int], Iterable[int]]
"""The indices to remove, by parameter name and dimension."""


def cut_parameters(module: nn.Module, removed: Removed) -> None:
    """Remove the indices from the named parameters and buffers, in place; shared ones stay shared.
    Raises `ValueError` if a dimension would become empty.
    """
    by_groups = {id(part) for part in module.modules() if goes_by_groups(part)}
    single = {id(part) for part in module.modules() if _one_channel_a_group(part)}
    owners, vectors = _replace(module, _shorter(module, removed))
    before = {name: outputs_of(part) for name, part in owners.items()}
    for part in _with_parents(module, owners):
        if isinstance(part, (*CONVOLUTIONS, *TRANSPOSED)):
            _resize_convolution(part, id(part) in by_groups)
        else:
            _resize(part)
        if id(part) in single:
            part.num_groups = part.num_channels
    for name, lengths in vectors:
        resize_shapes(owners[name], *lengths)
    for parent in dict.fromkeys(name.rpartition(".")[0] for name in owners if name):
        own = {name: part for name, part in owners.items() if name.rpartition(".")[0] == parent}
        sizes = {
            name.rpartition(".")[2]: (before[name], outputs_of(part)) for name, part in own.items()
        }
        resize_attention(module.get_submodule(parent), sizes)


def _shorter(module: nn.Module, removed: Removed) -> dict[int, Tensor]:
    """What each parameter and buffer that loses indices becomes, by the `id` of the old one."""
    replaced: dict[int, Tensor] = {}
    stored = dict(module.named_parameters()) | dict(module.named_buffers())
    for (name, dim), gone in removed.items():
        old = stored[name]
        value = replaced.get(id(old), old.detach())
        kept = sorted(set(range(value.shape[dim])) - set(gone))
        if not kept:
            raise ValueError(f"{name} would become empty")
        replaced[id(old)] = value.index_select(dim, torch.tensor(kept))
    olds = {id(value): value for value in stored.values()}
    for key, value in replaced.items():
        if isinstance(olds[key], nn.Parameter):
            replaced[key] = nn.Parameter(value, olds[key].requires_grad)
    return replaced


def _replace(
    module: nn.Module, replaced: Mapping[int, Tensor]
) -> tuple[dict[str, nn.Module], list[tuple[str, tuple[int, int]]]]:
    """Put the new tensors in place. Returns the modules that own any, by name, and the lengths
    before and after of every vector among them, with its owner's name."""
    owners: dict[str, nn.Module] = {}
    vectors: list[tuple[str, tuple[int, int]]] = []
    for owner, part in module.named_modules():
        for tensors in (part._parameters, part._buffers):
            for name, old in tensors.items():
                if id(old) in replaced:
                    tensors[name] = replaced[id(old)]
                    owners[owner] = part
                    if old is not None and old.dim() == 1:
                        vectors.append((owner, (len(old), len(replaced[id(old)]))))
    return owners, vectors


def _one_channel_a_group(layer: nn.Module) -> bool:
    return isinstance(layer, nn.GroupNorm) and layer.num_groups == layer.num_channels


@contextmanager
def cut_for_a_while(module: nn.Module, removed: Removed) -> Iterator[nn.Module]:
    """A context in which the module is without these indices."""
    before = [
        (part, dict(vars(part)), dict(part._parameters), dict(part._buffers))
        for part in module.modules()
    ]
    try:
        cut_parameters(module, removed)
        yield module
    finally:
        for part, attributes, parameters, buffers in before:
            vars(part).clear()
            vars(part).update(attributes)
            part._parameters.update(parameters)
            part._buffers.update(buffers)
            if isinstance(part, nn.RNNBase):
                part._init_flat_weights()


def _with_parents(module: nn.Module, owners: Mapping[str, nn.Module]) -> Sequence[nn.Module]:
    """The changed layers, then the modules that contain them."""
    parents = dict.fromkeys(name.rpartition(".")[0] for name in owners if name)
    return [*owners.values(), *(module.get_submodule(name) for name in parents)]


def _resize(layer: Any) -> None:
    """Set a layer's attributes to its parameters' new sizes."""
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = layer.weight.shape
    elif is_linear_by_columns(layer):
        layer.nf = layer.weight.shape[1]
        if hasattr(layer, "nx"):
            layer.nx = layer.weight.shape[0]
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = layer.weight.shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = len(layer.weight)
    elif isinstance(layer, RECURRENT):
        inputs, hidden = (getattr(layer, name) for name in recurrent_weights(layer)[:2])
        layer.input_size, layer.hidden_size = inputs.shape[1], hidden.shape[1]
        if isinstance(layer, nn.RNNBase):
            layer._init_flat_weights()
    else:
        _resize_norm(layer)


def _resize_norm(layer: Any) -> None:
    weight = getattr(layer, "weight", None)
    if isinstance(layer, nn.modules.batchnorm._NormBase):
        sizes = (each for each in (weight, layer.running_mean) if each is not None)
        layer.num_features = next((len(each) for each in sizes), layer.num_features)
    elif isinstance(layer, nn.GroupNorm) and weight is not None:
        layer.num_channels = len(weight)
    elif isinstance(layer, nn.LayerNorm | nn.RMSNorm) and weight is not None:
        layer.normalized_shape = tuple(weight.shape)


def _resize_convolution(layer: Any, by_groups: bool) -> None:
    first, second = layer.weight.shape[:2]
    transposed = isinstance(layer, TRANSPOSED)
    if by_groups:
        layer.groups = (
            first * layer.groups // (layer.in_channels if transposed else layer.out_channels)
        )
    layer.in_channels = first if transposed else second * layer.groups
    layer.out_channels = second * layer.groups if transposed else first


def output_shapes(outputs: Any) -> list[tuple[int, ...]]:
    """The shape of every tensor among a network's outputs."""
    return [tuple(each.shape) for each in pytree.tree_leaves(outputs) if isinstance(each, Tensor)]
