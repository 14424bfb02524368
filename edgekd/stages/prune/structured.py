"""Choosing which channels go: by an amount or down to a share of the MACs."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.network.cost import totals
from edgekd.network.evaluation import evaluate
from edgekd.stages.prune.allocation import Drops, Pool, best, by_sensitivity, global_, uniform
from edgekd.stages.prune.by_cost import (
    Measure,
    NetworkCost,
    Part,
    by_cost,
    network_cost,
    output_error,
    unit_of,
)
from edgekd.stages.prune.channels import channel_groups, remove_channels
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.granularity import Removed
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.kinds import is_kernel
from edgekd.stages.prune.selection import Selection, select_groups
from edgekd.stages.prune.spec import Goal, PruneSpec
from edgekd.training.context import Context
from edgekd.values.progress import Progress
from edgekd.values.tree import Tree

SHARES = (0.25, 0.5, 0.75)
"""The shares at which sensitivity is measured."""

MOST_SAMPLES = 256
"""Training samples on which the error of the outputs is measured."""

MOST = 0.98
BISECTIONS = 9


def selected_groups(
    module: nn.Module, example: Tree, spec: PruneSpec, criterion: Criterion
) -> Selection[Group]:
    """The groups that are cut, and the layers that the recipe does not ignore but that can't be."""
    wanted = [
        group
        for group in channel_groups(module, example, heads=spec.kind == "heads")
        if not group.output
        and _is(group, spec.kind, module)
        and not any(spec.ignores(layer) for layer in (group.root, *group.layers))
    ]
    return select_groups(module, wanted, criterion)


def headless(module: nn.Module, example: Tree) -> list[tuple[str, str]]:
    """The first layers from which nothing can be removed, with the reasons: why an attention has
    no heads to remove."""
    groups = channel_groups(module, example, heads=True)
    return [(group.name, group.reason) for group in groups if group.reason][:3]


def _is(group: Group, kind: Removed, module: nn.Module) -> bool:
    """Whether a group is of that kind; every group is made of channels."""
    if kind == "channels":
        return True
    if kind == "heads":
        return group.heads
    return not group.heads and _hidden(group, module)


def _hidden(group: Group, module: nn.Module) -> bool:
    """Whether one linear layer makes these and only linear layers read them: a feed-forward block's
    neurons."""
    makers: set[nn.Module] = set()
    readers: set[nn.Module] = set()
    for member in group.members:
        layer = module.get_submodule(member.layer)
        if is_kernel(layer):
            (makers if member.axis == "out" else readers).add(layer)
    return (
        len(makers) == 1
        and bool(readers)
        and all(isinstance(layer, nn.Linear) for layer in makers | readers)
    )


def units_of(groups: Sequence[Group]) -> dict[str, int]:
    """How many units each group has, by its name."""
    return {group.name: len(group.units) for group in groups}


def make_pools(
    groups: Sequence[Group], scores: Mapping[str, Tensor], first: Mapping[str, int], multiple: int
) -> list[Pool]:
    """One pool a group; the step keeps its channels a multiple of what the target is fast with."""
    return [
        Pool(
            group.name,
            scores[group.name],
            first.get(group.name, len(group.units)),
            group.step(multiple),
        )
        for group in groups
    ]


def share_out(
    pools: Sequence[Pool], spec: PruneSpec, amount: float, drops: Drops
) -> dict[str, int]:
    """Units that each pool keeps."""
    if spec.allocation == "global":
        return global_(pools, amount, spec.comparable)
    if spec.allocation == "sensitivity":
        return by_sensitivity(pools, amount, drops)
    return uniform(pools, amount)


def removals(
    groups: Sequence[Group], pools: Sequence[Pool], kept: Mapping[str, int]
) -> dict[str, list[int]]:
    """The root channels of every unit that does not stay."""
    gone = {}
    for group, pool in zip(groups, pools, strict=True):
        staying = set(best(pool, kept[pool.name]))
        lost = [unit for number, unit in enumerate(group.units) if number not in staying]
        if lost:
            gone[group.name] = sorted(channel for unit in lost for channel in unit)
    return gone


def measured_drops(
    module: nn.Module,
    example: Tree,
    groups: Sequence[Group],
    pools: Sequence[Pool],
    lost: Callable[[nn.Module], float],
    shares: Sequence[float],
    progress: Progress,
) -> dict[str, list[tuple[float, float]]]:
    """What is lost by cutting one group at a time, by the share of it that goes."""
    drops = {}
    for number, (group, pool) in enumerate(zip(groups, pools, strict=True)):
        progress("sensitivity", number, len(groups))
        measured: dict[float, float] = {}
        for share in shares:
            kept = max(pool.floor, round(pool.left * (1 - share)))
            if kept < pool.left:
                gone = removals([group], [pool], {pool.name: kept})
                measured[1 - kept / pool.left] = lost(
                    remove_channels(module, example, gone, groups)
                )
        drops[group.name] = sorted(measured.items())
    return drops


def cut(
    module: nn.Module,
    example: Tree,
    groups: Sequence[Group],
    scores: Mapping[str, Tensor],
    spec: PruneSpec,
    goal: Goal,
    context: Context,
) -> nn.Module:
    """A smaller copy: as much removed of the groups as the goal asks for, by their units' scores
    (`unit_scores`)."""
    pools = make_pools(groups, scores, goal.first, spec.multiple)
    keep = _allocator(module, example, groups, pools, spec, goal, context)

    def at(share: float) -> nn.Module:
        return remove_channels(module, example, removals(groups, pools, keep(share)), groups)

    if goal.limit is None:
        assert goal.amount is not None
        return at(goal.amount)
    report = partial(context.progress, "channels for the budget")
    return within(module, example, goal, at, MOST, report)


def _allocator(
    module: nn.Module,
    example: Tree,
    groups: Sequence[Group],
    pools: Sequence[Pool],
    spec: PruneSpec,
    goal: Goal,
    context: Context,
) -> Callable[[float], dict[str, int]]:
    """A function that gives the units that each pool keeps when a share is to go: of all units or,
    where the cost decides, of the cost."""
    drops: Drops = {}
    if spec.allocation == "sensitivity":
        samples = context.data.validation
        before = evaluate(module, samples)

        def lost(cut: nn.Module) -> float:
            return before - evaluate(cut, samples)

        drops = measured_drops(module, example, groups, pools, lost, SHARES, context.progress)
    if spec.allocation != "cost":
        return lambda share: share_out(pools, spec, share, drops)
    error = output_error(module, context.data.train.some(min(spec.samples, MOST_SAMPLES)))
    shares = (*SHARES, 1.0)
    drops = measured_drops(module, example, groups, pools, error, shares, context.progress)
    units = NetworkCost(units_of(groups), tuple(Part(p.left, ({p.name: 1.0},)) for p in pools))
    cost = units if goal.limit is None else network_cost(module, example, groups, goal.measure)
    first = sum(pool.first for pool in pools)
    whole = first if goal.limit is None else cost.total(cost.units)
    return lambda share: by_cost(pools, drops, cost, whole * (1 - share))


def within(
    module: nn.Module,
    example: Tree,
    goal: Goal,
    at: Callable[[float], nn.Module],
    most: float,
    report: Callable[[int, int], None],
) -> nn.Module:
    """The largest of the networks `at(share)`, share <= `most`, within the goal's limit;
    bisected."""
    limit = goal.limit
    assert limit is not None
    if cost_of(module, example, goal.measure) <= limit:
        return module
    low, high = 0.0, most
    smallest = at(high)
    least = cost_of(smallest, example, goal.measure)
    if least > limit:
        raise unreachable(least, limit, goal.measure)
    for number in range(BISECTIONS):
        report(number, BISECTIONS)
        middle = (low + high) / 2
        tried = at(middle)
        if cost_of(tried, example, goal.measure) <= limit:
            high, smallest = middle, tried
        else:
            low = middle
    return smallest


def cost_of(module: nn.Module, example: Tree, measure: Measure) -> int:
    """The network's multiply-accumulates, or its parameters."""
    counted = totals(module, example)
    return counted.macs if measure == "macs" else counted.parameters


def share_for(
    module: nn.Module, example: Tree, groups: Sequence[Group], spec: PruneSpec, goal: Goal
) -> float:
    """The share of channels that has to go for the goal's limit, whichever go, the same everywhere.

    Where the budget can't be held, the most that may go.
    """
    scores = {group.name: torch.arange(len(group.units)).double() for group in groups}
    pools = make_pools(groups, scores, {}, spec.multiple)
    low, high = 0.0, MOST
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        gone = removals(groups, pools, uniform(pools, middle))
        tried = remove_channels(module, example, gone, groups)
        fits = cost_of(tried, example, goal.measure) <= (goal.limit or 0.0)
        low, high = (low, middle) if fits else (middle, high)
    return high


def unreachable(least: float, limit: float, measure: Measure) -> InputError:
    """The error for a budget below what the smallest allowed network costs."""
    return InputError(
        f"a budget of {limit:,.0f} {unit_of(measure)} is out of reach: with one channel multiple "
        f"left in every layer there are still {least:,.0f}",
        hint="raise the budget, or take layers out of 'ignore'",
    )


def smallest(
    module: nn.Module, example: Tree, groups: Sequence[Group], multiple: int, measure: Measure
) -> float:
    """The cost with every group at its floor, whichever channels those are."""
    scores = {group.name: torch.arange(len(group.units)).double() for group in groups}
    pools = make_pools(groups, scores, {}, multiple)
    gone = removals(groups, pools, {pool.name: pool.floor for pool in pools})
    return cost_of(remove_channels(module, example, gone, groups), example, measure)
