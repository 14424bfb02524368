"""How each layer could be split into factors, and what each split alone would do, for a stage that
weighs it against other ways to save."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import nn

from edgekd.stages.factorize.covariance import input_moments
from edgekd.stages.factorize.ranks import Method, Option
from edgekd.stages.factorize.sensitivity import Spectra
from edgekd.stages.factorize.sites import (
    Site,
    at_energy,
    at_ranks,
    find_sites,
    replaced,
    spectrum_of,
)
from edgekd.values.progress import Progress
from edgekd.values.tree import Tree

ENERGIES = (0.5, 0.7, 0.85, 0.95, 0.99)
"""The shares of energy kept by the splits that are tried."""

Error = Callable[[nn.Module], float]
"""The error of another network's outputs."""


@dataclass(frozen=True)
class Split:
    """One split of a layer: `share` is how many values its factors have of the layer's weights,
    `error` that of the outputs."""

    method: Method
    ranks: tuple[int, ...]
    full: tuple[int, ...]
    share: float
    error: float

    @property
    def text(self) -> str:
        """The split in words."""
        ranks, full = ("x".join(map(str, each)) for each in (self.ranks, self.full))
        return f"{self.method} rank {ranks} of {full}"


def splits_of(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    ignores: Callable[[str], bool],
    multiple: int,
    error: Error,
    progress: Progress,
) -> dict[str, tuple[Split, ...]]:
    """The splits of each layer that store fewer values than it, none of them worse in both the
    values and the error than another."""
    sites, _ = find_sites(module, example, "svd", "auto", ignores)
    spectra = _spectra(module, sites, samples)
    found = {}
    for number, site in enumerate(sites):
        progress("ranks", number, len(sites))
        whole = _values(site.layer)
        splits: dict[tuple[Method, tuple[int, ...]], Split] = {}
        for method in site.methods:
            for energy in ENERGIES:
                spectrum = spectra[site.name, method]
                option = at_energy(site, method, spectrum, energy, multiple)
                if (method, option.ranks) in splits:
                    continue
                smaller = replaced(module, [site], {site.name: option}, spectra)
                share = _values(smaller.get_submodule(site.name)) / whole
                if share < 1.0:
                    splits[method, option.ranks] = Split(
                        method, option.ranks, site.full(method), share, error(smaller)
                    )
        found[site.name] = _worthwhile(list(splits.values()))
    return found


def split_network(
    module: nn.Module,
    example: Tree,
    samples: Tree,
    chosen: Mapping[str, Split],
    multiple: int,
) -> nn.Module:
    """A copy with the chosen layers split, whose channels may have become fewer since: each rank
    stays the same share of the full one. A split that would store more values is left out."""
    sites, _ = find_sites(module, example, "svd", "auto", lambda name: name not in chosen)
    spectra = _spectra(module, sites, samples)
    options: dict[str, Option] = {}
    for site in sites:
        split = chosen[site.name]
        if split.method not in site.methods:
            continue
        full = site.full(split.method)
        ranks = [
            max(1, round(rank * now / before))
            for rank, now, before in zip(split.ranks, full, split.full, strict=True)
        ]
        spectrum = spectra[site.name, split.method]
        option = at_ranks(site, split.method, spectrum, ranks, multiple)
        smaller = replaced(module, [site], {site.name: option}, spectra)
        if _values(smaller.get_submodule(site.name)) < _values(site.layer):
            options[site.name] = option
    return replaced(module, sites, options, spectra)


def _spectra(module: nn.Module, sites: list[Site], samples: Tree) -> Spectra:
    moments = input_moments(module, {site.name: site.layer for site in sites}, samples)
    return {
        (site.name, method): spectrum_of(site, method, moments.get(site.name))
        for site in sites
        for method in site.methods
    }


def _values(part: nn.Module) -> int:
    """How many weights a layer or its factors have, without biases."""
    return sum(value.numel() for value in part.parameters() if value.dim() > 1)


def _worthwhile(splits: list[Split]) -> tuple[Split, ...]:
    kept: list[Split] = []
    for split in sorted(splits, key=lambda each: (each.share, each.error)):
        if not kept or split.error < kept[-1].error:
            kept.append(split)
    return tuple(kept)
