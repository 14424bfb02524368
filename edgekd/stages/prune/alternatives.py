"""What pruning could remove of each group of channels, and what each removal alone would do, for a
stage that weighs it against other ways to save."""

from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from edgekd.stages._joint import Kept, Width
from edgekd.stages.prune.by_cost import damages_of, options_of, output_error
from edgekd.stages.prune.channels import remove_channels
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import (
    MOST_SAMPLES,
    SHARES,
    make_pools,
    measured_drops,
    removals,
)
from edgekd.training.context import Context
from edgekd.values.tree import Tree


@dataclass(frozen=True)
class Channels:
    """The groups of channels of which units may go; `sides` has, for each parameter's dimension
    that can lose something, which share of it goes with all units of each group. `without` makes
    the network that keeps so many units of each."""

    widths: Mapping[str, Width]
    sides: Mapping[str, tuple[Mapping[str, float], ...]]
    without: Callable[[Kept], nn.Module]


def channels_of(
    module: nn.Module,
    example: Tree,
    groups: list[Group],
    scores: Mapping[str, Tensor],
    spec: PruneSpec,
    context: Context,
) -> Channels:
    """The alternatives of a network's groups, whose units have these scores."""
    pools = make_pools(groups, scores, {}, spec.multiple)
    error = output_error(module, context.data.train.some(min(spec.samples, MOST_SAMPLES)))
    shares = (*SHARES, 1.0)
    drops = measured_drops(module, example, groups, pools, error, shares, context.progress)
    widths = {}
    for pool in pools:
        counts = options_of(pool)
        errors = damages_of(pool, counts, drops[pool.name])
        widths[pool.name] = Width(tuple(counts), tuple(errors))

    def without(kept: Kept) -> nn.Module:
        return remove_channels(module, example, removals(groups, pools, kept), groups)

    return Channels(widths, _sides(module, groups), without)


def _sides(module: nn.Module, groups: list[Group]) -> dict[str, tuple[Mapping[str, float], ...]]:
    shapes = {name: value.shape for name, value in module.named_parameters()}
    sides: dict[str, dict[int, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for group in groups:
        for part in group.slices:
            if part.parameter in shapes:  # not a buffer, such as a norm's running mean
                known = sides[part.parameter][part.dim]
                share = len(part.indices) / shapes[part.parameter][part.dim]
                known[group.name] = known.get(group.name, 0.0) + share
    return {name: tuple(each.values()) for name, each in sides.items()}
