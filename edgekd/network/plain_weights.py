"""Turns weights that `forward` computes into plain parameters.

Weight normalization, spectral normalization, pruning masks and any other parametrization of
`torch.nn.utils` hide a layer's weight behind other tensors. Code that reads or changes weights by
name needs plain ones, and at inference both are equal.
"""

import copy
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune

_HOOKS = ("WeightNorm", "SpectralNorm")


def has_computed_weights(module: nn.Module) -> bool:
    """Whether any layer computes its weight from other tensors at each call."""
    return any(parametrize.is_parametrized(part) or _hooks(part) for part in module.modules())


def with_plain_weights(module: nn.Module) -> nn.Module:
    """The module itself, or a copy whose computed weights are parameters with their values.

    The copy computes what the module computes in eval mode: spectral normalization keeps its
    current estimate. Pruned weights become ordinary zeros, which training may change.
    """
    if not has_computed_weights(module):
        return module
    with torch.no_grad():
        for part in module.modules():
            for hook in _hooks(part):
                hook(part, ())  # leaves a weight without history, which alone can be copied
    training = {name: part.training for name, part in module.named_modules()}
    plain = copy.deepcopy(module).eval()
    with torch.no_grad():
        for part in list(plain.modules()):
            for hook in _hooks(part):
                _remove_hook(part, hook)
            if parametrize.is_parametrized(part):
                _remove_parametrizations(part)
    for name, part in plain.named_modules():
        part.training = training.get(name, False)
    return plain


def _remove_parametrizations(part: nn.Module) -> None:
    """Like `parametrize.remove_parametrizations`, which would break the original module: it deletes
    properties of the class, which a copy shares with its original.
    """
    every: Any = part.parametrizations
    values = {name: getattr(part, name).detach().clone() for name in every}
    trained = {name: any(p.requires_grad for p in every[name].parameters()) for name in every}
    plain = parametrize.type_before_parametrizations(part)
    del part.parametrizations
    part.__class__ = plain
    for name, value in values.items():
        part.register_parameter(name, nn.Parameter(value, requires_grad=trained[name]))


class Masked(nn.Module):
    """A parametrization that keeps the weights at zero where `mask` is zero."""

    mask: Tensor

    def __init__(self, mask: Tensor) -> None:
        super().__init__()
        self.register_buffer("mask", mask.clone())

    def forward(self, weight: Tensor) -> Tensor:
        return weight * self.mask


def hooks_to_parametrizations(module: nn.Module) -> None:
    """Turn weights that hooks compute (older functions of `torch.nn.utils`) into parametrizations.

    A module with such hooks can't be copied once it has run with gradients.
    """
    for part in module.modules():
        for hook in _hooks(part):
            with torch.no_grad():
                hook(part, ())
            if isinstance(hook, prune.BasePruningMethod):
                name = hook._tensor_name
                mask = getattr(part, f"{name}_mask")
                prune.remove(part, name)  # type: ignore[no-untyped-call]
                parametrize.register_parametrization(part, name, Masked(mask))
            elif type(hook).__name__ == "WeightNorm":
                _remove_hook(part, hook)
                parametrizations.weight_norm(part, hook.name, hook.dim)
            else:
                _move_spectral_norm(part, hook)


def _move_spectral_norm(part: nn.Module, hook: Any) -> None:
    """Spectral normalization as a parametrization, with the hook's weight and its estimate."""
    name, iterations = hook.name, hook.n_power_iterations
    weight, *vectors = (getattr(part, f"{name}_{kind}").detach() for kind in ("orig", "u", "v"))
    nn.utils.remove_spectral_norm(part, name)
    parametrizations.spectral_norm(part, name, iterations, hook.eps, hook.dim)
    moved: Any = part.parametrizations[name]  # type: ignore[index]
    with torch.no_grad():
        moved.original.copy_(weight)
        moved[0]._u.copy_(vectors[0])
        moved[0]._v.copy_(vectors[1])


def _hooks(part: nn.Module) -> list[Any]:
    """The forward hooks by which older functions of `torch.nn.utils` compute a weight."""
    return [
        hook
        for hook in part._forward_pre_hooks.values()
        if isinstance(hook, prune.BasePruningMethod) or type(hook).__name__ in _HOOKS
    ]


def _remove_hook(part: nn.Module, hook: Any) -> None:
    if isinstance(hook, prune.BasePruningMethod):
        prune.remove(part, hook._tensor_name)  # type: ignore[no-untyped-call]
    elif type(hook).__name__ == "WeightNorm":
        nn.utils.remove_weight_norm(part, hook.name)
    else:
        nn.utils.remove_spectral_norm(part, hook.name)
