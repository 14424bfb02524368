"""Networks within a network: the first units of each group, as many as a width leaves, and the
first residual blocks of each shape, as many as a depth leaves.

Units are put in the order of their scores once. Every smaller network is then the beginning of
each parameter, so that one training of the whole trains them all.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.data.samples import Samples
from edgekd.data.seeds import seeded_generator
from edgekd.network.evaluation import evaluating, predict
from edgekd.registry import CRITERIA
from edgekd.stages.prune.allocation import uniform
from edgekd.stages.prune.blocks import Block, cut_blocks, first_blocks
from edgekd.stages.prune.channels import indices_of, remove_channels
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.recovery import scored
from edgekd.stages.prune.scoring import in_place, unit_scores
from edgekd.stages.prune.spec import Goal, PruneSpec
from edgekd.stages.prune.structured import make_pools, removals, units_of
from edgekd.training.context import Context
from edgekd.values.tree import Tree, leaves, mapped

TOLERANCE = 1e-3
"""The largest difference, relative to the outputs, that a sum in another order may make."""

BATCH = 64

Kept = Mapping[str, Sequence[tuple[int, Tensor]]]
"""Of each parameter that is shorter in a smaller network: dimensions, and the indices that stay."""


def ordered(
    module: nn.Module,
    example: Tree,
    groups: Sequence[Group],
    spec: PruneSpec,
    context: Context,
) -> nn.Module:
    """A copy that computes the same, each group's units in the order of their weights' L2 norms."""
    criterion: Criterion = CRITERIA.get("magnitude-l2").make()
    made, scores = scored(module, criterion, spec, context)
    units = {group.name: unit_scores(made, group, scores, criterion) for group in groups}
    in_order(made, example, groups, units)
    return made


def nested(
    module: nn.Module, example: Tree, groups: Sequence[Group], amount: float, spec: PruneSpec
) -> tuple[nn.Module, Kept]:
    """The network of the first units of each group, and what stays of each parameter."""
    units = {group.name: in_place(group) for group in groups}
    pools = make_pools(groups, units, units_of(groups), spec.multiple)
    gone = removals(groups, pools, uniform(pools, amount))
    return remove_channels(module, example, gone, groups), kept_indices(module, groups, gone)


def without_last(
    module: nn.Module,
    example: Tree,
    blocks: Sequence[Block],
    amount: float,
    spec: PruneSpec,
    criterion: Criterion,
    context: Context,
) -> nn.Module:
    """The network without the last of its residual blocks of each shape."""
    goal = Goal(first_blocks(blocks), amount, None)
    return cut_blocks(module, example, spec, {}, criterion, goal, context)


def in_order(
    module: nn.Module, example: Tree, groups: Sequence[Group], scores: Mapping[str, Tensor]
) -> None:
    """Put each group's units in the order of their scores, the best first, in place.

    The network computes the same. Groups whose places have a meaning, such as those that a channel
    shuffle divides, keep their order.
    """
    x = _noise(example)
    expected = leaves(predict(module, x))

    def same() -> bool:
        pairs = zip(leaves(predict(module, x)), expected, strict=True)
        return all(
            bool(((a - b).abs().max() <= TOLERANCE * b.abs().max().clamp_min(1e-6)).item())
            for a, b in pairs
        )

    for group in groups:
        order = scores[group.name].argsort(descending=True, stable=True)
        _reorder(module, group, order)
        if not same():
            _reorder(module, group, order.argsort())


def _noise(example: Tree) -> Tree:
    """Random numbers in place of an example's floats."""
    generator = seeded_generator(0, "order of channels")

    def drawn(leaf: Tensor) -> Tensor:
        if not leaf.is_floating_point():
            return leaf
        return torch.randn(leaf.shape, generator=generator).to(leaf.dtype)

    made: Tree = mapped(drawn, example)
    return made


def _reorder(module: nn.Module, group: Group, order: Tensor) -> None:
    """Put the unit `order[k]` at the place of unit k, wherever the group's channels are stored."""
    stored = dict(module.named_parameters()) | dict(module.named_buffers())
    done: set[tuple[int, int]] = set()
    for name, dim, places in _places(group):
        value = stored[name]
        if (id(value), dim) in done or len({len(own) for own in places}) != 1:
            continue
        done.add((id(value), dim))
        source = torch.arange(value.shape[dim])
        for place, unit in zip(places, order.tolist(), strict=True):
            source[place] = torch.tensor(places[unit])
        value.data.copy_(value.detach().index_select(dim, source))


def _places(group: Group) -> Iterator[tuple[str, int, list[list[int]]]]:
    """Each dimension that the group runs through, with the indices of each unit."""
    found: dict[tuple[str, int], list[list[int]]] = defaultdict(lambda: [[] for _ in group.units])
    for part in group.slices:
        for index, unit in zip(part.indices, part.units, strict=True):
            found[part.parameter, part.dim][unit].append(index)
    for (name, dim), places in found.items():
        yield name, dim, [sorted(own) for own in places]


def kept_indices(
    module: nn.Module, groups: Sequence[Group], removals: Mapping[str, Sequence[int]]
) -> Kept:
    """What stays of each parameter when these channels are removed."""
    shapes = {name: value.shape for name, value in module.named_parameters()}
    kept: dict[str, list[tuple[int, Tensor]]] = defaultdict(list)
    for (name, dim), gone in indices_of(groups, removals).items():
        if name in shapes:
            left = sorted(set(range(shapes[name][dim])) - set(gone))
            kept[name].append((dim, torch.tensor(left)))
    return kept


def recalibrated(module: nn.Module, samples: Samples) -> nn.Module:
    """The module with the batch norms' statistics of its own activations, in place: the mean over
    batches of samples (Yu and Huang 2019, section 3.3)."""
    norms = [
        part
        for part in module.modules()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.track_running_stats
    ]
    if not norms:
        return module
    momenta = [norm.momentum for norm in norms]
    with evaluating(module), torch.no_grad():
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over batches
            norm.training = True
        for x, _ in samples.batches(BATCH):
            module(x)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return module
