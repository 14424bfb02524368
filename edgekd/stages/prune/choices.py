"""Resolves which dimension shrinks in ambiguous reshapes and slices, by trying. `view(B, 4, -1)`
and `view(B, 4, 16)` look alike in a trace, as do the first half of the channels and the first 32.
Each kind of place is tried in turn, and the choice that allows removing the most units is kept. A
choice can't do harm: its groups are verified like all others.
"""

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, replace

from edgekd.stages.prune.coupling.trace import Site
from edgekd.stages.prune.groups import Group, groups_of
from edgekd.stages.prune.proof import Proof

Choices = dict[int, int]

MOST_TRIES = 10
MOST_CHOICES = 4


@dataclass(frozen=True)
class _Outcome:
    """The result of one set of choices."""

    choices: Choices
    groups: list[Group]
    sites: tuple[Site, ...]
    stuck: frozenset[int]

    def worth(self, heads: bool) -> tuple[int, int]:
        """How many units can be removed; if `heads` are wanted, first how many of those."""
        open_ = [each for each in self.groups if each.can_go]
        wanted = sum(len(each.units) for each in open_ if each.heads) if heads else 0
        return wanted, sum(len(each.units) for each in open_)


def proven_groups(proof: Proof, heads: bool = False) -> list[Group]:
    """The groups by the best choices found in at most `MOST_TRIES` tries: those with the most
    units, or with the most attention heads."""
    best = [_tried(proof, {}, heads)]
    for _, choices in zip(range(MOST_TRIES), _more(best), strict=False):
        found = _tried(proof, choices, heads, best[0].groups)
        if found.worth(heads) > best[0].worth(heads):
            best[0] = found
    return best[0].groups


def _more(best: list[_Outcome]) -> Iterator[Choices]:
    """The choices to try next, starting from the best so far, which is in the list."""
    yield from _together(best[0])
    for by_size in (False, True):
        for kind in dict.fromkeys(_kind(site, by_size) for site in best[0].sites):
            for choice in range(MOST_CHOICES):
                yield from _of_kind(best[0], kind, by_size, choice)


def _tried(proof: Proof, choices: Choices, heads: bool, before: Sequence[Group] = ()) -> _Outcome:
    structure = proof.followed(choices)
    groups = groups_of(proof.module, structure)
    trusted = [each for each in before if each.can_go]
    bad = proof.unproven(groups, structure, trusted)
    groups = [replace(each, reason=bad.get(each.name, each.reason)) for each in groups]
    stuck = {each for group in groups if not _is_fine(group, heads) for each in group.sets}
    concerned = {
        number
        for number, site in enumerate(structure.sites)
        if stuck & set(structure.roots[site.atoms].tolist())
    }
    return _Outcome(choices, groups, structure.sites, frozenset(concerned))


def _together(first: _Outcome) -> Iterator[Choices]:
    """Every stuck place with its second choice, then with its third, and so on."""
    most = max((first.sites[number].choices for number in first.stuck), default=0)
    for choice in range(1, most):
        yield dict.fromkeys(first.stuck, choice)


def _of_kind(now: _Outcome, kind: Hashable, by_size: bool, choice: int) -> Iterator[Choices]:
    """Another choice for the stuck places of one kind, everything else as it is."""
    places = [
        number
        for number in now.stuck
        if number < len(now.sites)
        and _kind(now.sites[number], by_size) == kind
        and choice <= now.sites[number].choices
    ]
    if any(now.choices.get(number, 0) != choice for number in places):
        yield {**now.choices, **dict.fromkeys(places, choice)}


def _kind(site: Site, by_size: bool) -> Hashable:
    return (site.kind, site.sizes) if by_size else site.kind


def _is_fine(group: Group, heads: bool) -> bool:
    """Whether some units can be removed, or the group is the network's output. Where `heads` are
    wanted, channels that a reshape could divide in another way might be some."""
    return group.output or (group.can_go and (group.heads or not heads))
