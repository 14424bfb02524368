"""Finds the layers of a network that can be factorized, and replaces them."""

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from edgekd.errors import first_line
from edgekd.network.conv1d import is_linear_by_columns, linear_matrix
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
from edgekd.values.tree import Tree, leaves

TOLERANCE = 1e-3
"""How far outputs may differ at full rank, as a share of the largest: float32 rounds twice."""


@dataclass(frozen=True)
class Site:
    """A layer that may be factorized: which methods, and the sizes that its cost depends on.

    `before` and `after` are (H, W) of a convolution's input and output, `positions` of a linear
    layer's features; all for one sample. `macs` is what it costs now, over all its `calls`.
    """

    name: str
    layer: nn.Module
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
        return (min(linear_matrix(self.layer).shape),)

    def cost(self, method: Method, ranks: tuple[int, ...]) -> int:
        """Multiply-accumulates of the factors, over all calls."""
        if isinstance(self.layer, nn.Conv2d):
            macs = conv_macs(self.layer, method, ranks, self.before, self.after)
        else:
            macs = linear_macs(self.layer, self.positions, ranks[0])
        return macs * self.calls


@dataclass
class Spectrum:
    """A layer's bases by one method: `left` and `right` for the split, and each mode's values."""

    left: Tensor
    right: Tensor | None
    values: list[Tensor] = field(default_factory=list)

    def error(self, ranks: tuple[int, ...]) -> float:
        """The share of energy lost; with two modes the bound of HOSVD, their sum."""
        return sum(tail(values, rank) for values, rank in zip(self.values, ranks, strict=True))


def find_sites(
    module: nn.Module,
    example: Tree,
    linear: str,
    convolution: str,
    ignores: Callable[[str], bool],
) -> tuple[list[Site], dict[str, str]]:
    """The layers to which the methods apply, and, by name, why others are left unchanged. Every
    site has been tested: splitting it at full rank does not change the network's outputs.
    """
    shapes, left = _shapes(module, example), {}
    shared = _shared_weights(module)
    sites = []
    for name, layer in module.named_modules():
        wanted = convolution if _is_convolution(layer) else linear if _is_linear(layer) else "none"
        if ignores(name) or wanted == "none":
            continue
        if name not in shapes:
            left[name] = "its weight is used by other code, not by the layer"
            continue
        if name in shared:
            left[name] = f"shares its weight with '{shared[name]}'"
            continue
        site = _site(name, layer, shapes[name], convolution)
        if isinstance(site, str):
            left[name] = site
        else:
            sites.append(site)
    unfaithful = unfaithful_sites(module, example, sites)
    return [site for site in sites if site.name not in unfaithful], left | unfaithful


Shapes = tuple[torch.Size, torch.Size, int]


def _site(name: str, layer: Any, shapes: Shapes, convolution: str) -> Site | str:
    """A layer as a site, or the reason why it is not one."""
    inputs, outputs, calls = shapes
    if _is_linear(layer):
        rows, columns = linear_matrix(layer).shape
        positions = inputs.numel() // columns
        return Site(name, layer, ("svd",), positions * rows * columns * calls, calls, positions)
    if not isinstance(layer, nn.Conv2d):
        return "not two-dimensional"
    methods = tuple(each for each in methods_for(layer) if convolution in ("auto", each))
    why = unsupported(layer)
    if why or not methods:
        return why or f"{convolution} does not apply"
    macs = layer.weight.numel() * outputs[-2] * outputs[-1] * calls
    before, after = (inputs[-2], inputs[-1]), (outputs[-2], outputs[-1])
    return Site(name, layer, methods, macs, calls, 1, before, after)


def _is_linear(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Linear) or is_linear_by_columns(layer)


def _is_convolution(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv1d | nn.Conv2d | nn.Conv3d)


def _shared_weights(module: nn.Module) -> dict[str, str]:
    """For each layer that shares its weight with another such layer, that layer. An embedding may
    share it, as in language models: it keeps its table when the layer is split.
    """
    owners: dict[int, list[str]] = {}
    for name, layer in module.named_modules():
        if _is_linear(layer) or _is_convolution(layer):
            owners.setdefault(id(layer.weight), []).append(name)
    pairs = [names for names in owners.values() if len(set(names)) > 1]
    return {name: names[0 if name != names[0] else 1] for names in pairs for name in names}


def _shapes(module: nn.Module, example: Tree) -> dict[str, Shapes]:
    seen: dict[str, Shapes] = {}

    def watch(name: str) -> Callable[..., None]:
        def hook(layer: nn.Module, inputs: tuple[Any, ...], keys: Any, output: Tensor) -> None:
            given = inputs[0] if inputs else next(iter(keys.values()))
            calls = seen[name][2] if name in seen else 0
            seen[name] = (given[:1].shape, output[:1].shape, calls + 1)

        return hook

    with ExitStack() as hooks, torch.no_grad():
        for name, part in module.named_modules():
            if _is_linear(part) or _is_convolution(part):
                hook = part.register_forward_hook(watch(name), with_kwargs=True)
                hooks.enter_context(hook)
        module(example)
    return seen


def unfaithful_sites(module: nn.Module, example: Tree, sites: Sequence[Site]) -> dict[str, str]:
    """The sites that would change the network even at full rank, by each of their methods."""
    reasons: dict[str, str] = {}
    with torch.no_grad():
        expected = _outputs(module, example)
        for method in dict.fromkeys(each for site in sites for each in site.methods):
            waiting = [[site for site in sites if method in site.methods]]
            while waiting:
                batch = waiting.pop()
                failure = _failure(module, example, batch, method, expected)
                if failure and len(batch) == 1:
                    reasons[batch[0].name] = failure
                elif failure:
                    half = len(batch) // 2
                    waiting += [batch[:half], batch[half:]]
    return reasons


def _failure(
    module: nn.Module, example: Tree, sites: Sequence[Site], method: Method, expected: Any
) -> str:
    """How the network changes with these sites split at full rank; empty if it does not."""
    spectra = {(site.name, method): _exact(site, method) for site in sites}
    options = {site.name: Option(method, site.full(method), 0, 0.0) for site in sites}
    try:
        outputs = _outputs(replaced(module, sites, options, spectra), example)
    except Exception as error:  # whatever the network's own forward raises
        return f"the network does not run with this layer split: {first_line(error)}"
    pairs = list(zip(outputs, expected, strict=True))
    if any(one.shape != other.shape for one, other in pairs):
        return "the network's outputs have a different shape with this layer split"
    scales = [float(other.abs().max()) if other.numel() else 0.0 for _, other in pairs]
    close = (
        torch.allclose(one, other, rtol=0.0, atol=TOLERANCE * scale + 1e-6, equal_nan=True)
        for (one, other), scale in zip(pairs, scales, strict=True)
    )
    return (
        "" if all(close) else "the network's outputs change when this layer is split at full rank"
    )


def _outputs(module: nn.Module, example: Tree) -> list[Tensor]:
    return [leaf.double() for leaf in leaves(module(example))]


def _exact(site: Site, method: Method) -> Spectrum:
    """Bases that keep all of a layer, without the cost of singular values."""
    layer: Any = site.layer
    if not isinstance(layer, nn.Conv2d):
        return Spectrum(torch.linalg.qr(linear_matrix(layer).double())[0], None)
    left = torch.linalg.qr(matrix_of(layer, method))[0]
    if method != "tucker2":
        return Spectrum(left, None)
    kernel = layer.weight.detach().double().permute(0, 2, 3, 1).flatten(0, 2)
    rows = torch.linalg.qr(kernel.T)[0].T
    return Spectrum(left, torch.stack([rows, rows]))


def spectrum_of(site: Site, method: Method, moments: Moments | None) -> Spectrum:
    """Bases and singular values of a layer, weighted where the moments of its inputs are given."""
    layer = site.layer
    if not isinstance(layer, nn.Conv2d):
        left, values = basis(linear_matrix(layer), moments.patches if moments else None)
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
    """The option whose modes each keep that share of the energy."""
    ranks = [energy_rank(values, energy) for values in spectrum.values]
    return at_ranks(site, method, spectrum, ranks, multiple)


def at_ranks(
    site: Site, method: Method, spectrum: Spectrum, ranks: Sequence[int], multiple: int
) -> Option:
    """The option with these ranks, rounded up to the target's channel multiple."""
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
