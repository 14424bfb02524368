"""Warm starts: what another search found is tried first."""

from collections.abc import Iterator
from pathlib import Path

from edgekd.errors import InputError
from edgekd.searching.distributions import contains
from edgekd.searching.result import SearchResult, load_search
from edgekd.searching.space import Parameters, SearchSpace


def warm_starts(folder: str | Path, space: SearchSpace) -> tuple[Parameters, ...]:
    """The values of the fronts of the search in `folder` that lie in this space's ranges, the
    chosen points first. Values of ranges that the other search lacks are left to the sampler.

    Raises `InputError` if there is no search in the folder, or if nothing of its fronts fits.
    """
    found = load_search(folder)
    ranges = {dimension.place: dimension.range for dimension in space.dimensions}
    starts: list[Parameters] = []
    for parameters in _front_parameters(found):
        fitting = {
            place: value
            for place, value in parameters.items()
            if place in ranges and contains(ranges[place], value)
        }
        if fitting and fitting not in starts:
            starts.append(fitting)
    if not starts:
        raise InputError(
            "no value of its Pareto fronts lies in a range of this search",
            where=f"--warm-start {folder}",
            allowed=f"a search over some of {', '.join(ranges)}",
            hint="'edgekd search report DIR' shows what a search found",
        )
    return tuple(starts)


def _front_parameters(found: SearchResult) -> Iterator[Parameters]:
    """The parameters of the points of each target's front, from the chosen one on; of the nearest
    point where none meets the budgets."""
    by_number = {trial.number: trial.parameters for trial in found.trials}
    for target in found.targets:
        points = [target.best, target.nearest, *target.front]
        yield from (by_number[point.trial] for point in points if point is not None)
