"""Ranks by measured sensitivity: each layer's cheapest ones with a small accuracy loss."""

from collections.abc import Callable, Mapping, Sequence

from torch import nn

from edgekd.stages.factorize.ranks import Method, Option
from edgekd.stages.factorize.sites import Site, Spectrum, at_energy, replaced
from edgekd.values.progress import Progress

ENERGIES = (0.3, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.96, 0.98, 0.99, 0.995, 0.999)
"""The shares of energy kept by the modes in the options that are tried."""

Spectra = Mapping[tuple[str, Method], Spectrum]
Score = Callable[[nn.Module], float]


def options_of(site: Site, spectra: Spectra, method: Method, multiple: int) -> list[Option]:
    """The options worth measuring, cheapest first: cheaper than the layer, without duplicates."""
    found: dict[tuple[int, ...], Option] = {}
    for energy in ENERGIES:
        option = at_energy(site, method, spectra[site.name, method], energy, multiple)
        if option.macs < site.macs:
            found.setdefault(option.ranks, option)
    return sorted(found.values(), key=lambda option: option.macs)


def least_option(
    options: Sequence[Option], lost: Callable[[Option], float], allowed: float
) -> Option | None:
    """The cheapest option within the allowed loss, by bisection; None if even the last exceeds
    it."""
    low, high = 0, len(options)
    while low < high:
        middle = (low + high) // 2
        if lost(options[middle]) <= allowed:
            high = middle
        else:
            low = middle + 1
    return options[high] if high < len(options) else None


def by_sensitivity(
    module: nn.Module,
    sites: Sequence[Site],
    spectra: Spectra,
    multiple: int,
    score: Score,
    allowed: float,
    progress: Progress,
) -> dict[str, Option]:
    """Each layer's cheapest option at which the network, with only that layer factorized, scores
    at most `allowed` below the original."""
    before, chosen = score(module), {}
    for number, site in enumerate(sites):
        progress("sensitivity", number, len(sites))

        def lost(option: Option, site: Site = site) -> float:
            return before - score(replaced(module, [site], {site.name: option}, spectra))

        cheapest = [
            least_option(options_of(site, spectra, method, multiple), lost, allowed)
            for method in site.methods
        ]
        best = min((each for each in cheapest if each), key=_price, default=None)
        if best is not None:
            chosen[site.name] = best
    return chosen


def _price(option: Option) -> tuple[int, float]:
    return option.macs, option.error
