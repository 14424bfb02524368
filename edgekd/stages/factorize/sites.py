"""From a network to one with cheaper layers: what each could become, and putting it in place."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.stages.factorize.convolution import (
    conv_macs,
    full_ranks,
    input_basis,
    matrix_of,
    methods_for,
    split_convolution,
    unsupported,
)
from edgekd.stages.factorize.covariance import Moments
from edgekd.stages.factorize.linear import basis, linear_macs, split_linear
from edgekd.stages.factorize.ranks import Method, Option, energy_rank, grid, rounded_up, tail


@dataclass(frozen=True)
class Site:
    """A layer that may be factorized: which methods, and the sizes that its cost depends on.

    `before` and `after` are (H, W) of a convolution's input and output, `positions` of a linear
    layer's features; all for one sample. `macs` is what it costs now, over all its `calls`.
    """

    name: str
    layer: nn.Linear | nn.Conv2d
    methods: tuple[Method, ...]
    macs: int
    calls: int
    positions: int = 1
    before: tuple[int, int] = (1, 1)
    after: tuple[int, int] = (1, 1)

    def full(self, method: Method) -> tuple[int, ...]:
        """The largest ranks."""
        if isinstance(self.layer, nn.Conv2d):
            return full_ranks(self.layer, method)
        return (min(self.layer.in_features, self.layer.out_features),)

    def cost(self, method: Method, ranks: tuple[int, ...]) -> int:
        """Multiply-accumulates of the factors, over all calls."""
        if isinstance(self.layer, nn.Conv2d):
            each = conv_macs(self.layer, method, ranks, self.before, self.after)
        else:
            each = linear_macs(self.layer, self.positions, ranks[0])
        return each * self.calls


@dataclass
class Spectrum:
    """A layer's bases by one method: `left` and `right` as the splits want them, values a mode."""

    left: Tensor
    right: Tensor | None
    values: list[Tensor] = field(default_factory=list)

    def error(self, ranks: tuple[int, ...]) -> float:
        """The share of energy lost; with two modes the bound of HOSVD, their sum."""
        return sum(tail(values, rank) for values, rank in zip(self.values, ranks, strict=True))


def find_sites(
    module: nn.Module,
    example: Tensor,
    linear: str,
    convolution: str,
    ignores: Callable[[str], bool],
) -> tuple[list[Site], dict[str, str]]:
    """The layers that the wanted methods apply to, and by name why others are left as they are."""
    shapes, left = _shapes(module, example), {}
    sites = []
    for name, layer in module.named_modules():
        if ignores(name) or name not in shapes:
            continue
        inputs, outputs, calls = shapes[name]
        if isinstance(layer, nn.Linear) and linear != "none":
            positions = inputs.numel() // layer.in_features
            macs = positions * layer.in_features * layer.out_features * calls
            sites.append(Site(name, layer, ("svd",), macs, calls, positions))
        elif isinstance(layer, nn.Conv2d) and convolution != "none":
            why = unsupported(layer)
            allowed = methods_for(layer)
            methods = [each for each in allowed if convolution in ("auto", each)]
            if why or not methods:
                left[name] = why or f"{convolution} does not apply"
                continue
            area = outputs[-2] * outputs[-1]
            macs = layer.weight.numel() * area * calls
            before, after = (inputs[-2], inputs[-1]), (outputs[-2], outputs[-1])
            sites.append(Site(name, layer, tuple(methods), macs, calls, 1, before, after))
        elif isinstance(layer, nn.Conv1d | nn.Conv3d) and convolution != "none":
            left[name] = "not two-dimensional"
    return sites, left


def _shapes(module: nn.Module, example: Tensor) -> dict[str, tuple[torch.Size, torch.Size, int]]:
    seen: dict[str, tuple[torch.Size, torch.Size, int]] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
            calls = seen[name][2] if name in seen else 0
            seen[name] = (inputs[0][:1].shape, output[:1].shape, calls + 1)

        return hook

    kinds = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
    with ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            if isinstance(part, kinds):
                hooks.enter_context(part.register_forward_hook(watch(name)))
        module(example)
    return seen


def spectrum_of(site: Site, method: Method, moments: Moments | None) -> Spectrum:
    """Bases and singular values of a layer, weighted where the moments of its inputs are given."""
    layer = site.layer
    if not isinstance(layer, nn.Conv2d):
        left, values = basis(layer.weight.detach(), moments.patches if moments else None)
        return Spectrum(left, None, [values])
    moment = None
    if moments is not None:
        moment = moments.columns if method == "spatial-svd" else moments.patches
    left, values = basis(matrix_of(layer, method), moment)
    if method != "tucker2":
        return Spectrum(left, None, [values])
    right, others = input_basis(layer, moments.channels if moments else None)
    return Spectrum(left, right, [values, others])


def at_energy(
    site: Site, method: Method, spectrum: Spectrum, energy: float, multiple: int
) -> Option:
    """The option whose modes each hold that share of the energy."""
    ranks = [energy_rank(values, energy) for values in spectrum.values]
    return at_ranks(site, method, spectrum, ranks, multiple)


def at_ranks(
    site: Site, method: Method, spectrum: Spectrum, ranks: Sequence[int], multiple: int
) -> Option:
    """The option with these ranks, rounded up to what the target computes anyway."""
    full = site.full(method)
    rounded = tuple(
        rounded_up(min(rank, most), multiple, most) for rank, most in zip(ranks, full, strict=True)
    )
    return Option(method, rounded, site.cost(method, rounded), spectrum.error(rounded))


def all_ranks(site: Site, method: Method, multiple: int) -> list[tuple[int, ...]]:
    """Every combination of ranks that is worth trying."""
    modes = [grid(full, multiple) for full in site.full(method)]
    if len(modes) == 1:
        return [(rank,) for rank in modes[0]]
    return [(first, second) for first in modes[0] for second in modes[1]]


def replaced(
    module: nn.Module,
    sites: Sequence[Site],
    chosen: Mapping[str, Option],
    spectra: Mapping[tuple[str, Method], Spectrum],
) -> nn.Module:
    """A copy with the chosen layers as sequences of their factors; shared layers stay shared."""
    smaller = copy.deepcopy(module)
    names = [(name, part) for name, part in smaller.named_modules(remove_duplicate=False)]
    for site in sites:
        option = chosen.get(site.name)
        if option is None:
            continue
        spectrum = spectra[site.name, option.method]
        old = smaller.get_submodule(site.name)
        if isinstance(site.layer, nn.Conv2d):
            factors = split_convolution(
                site.layer, option.method, spectrum.left, option.ranks, spectrum.right
            )
        else:
            factors = split_linear(site.layer, spectrum.left, option.ranks[0])
        for name, part in names:
            if part is old:
                smaller.set_submodule(name, factors)
    for part in smaller.modules():
        part.training = False
    return smaller
