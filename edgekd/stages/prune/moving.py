"""Movement pruning of channels: they are chosen while the network trains. A pruned channel is
silenced where it is read: the columns of the layers after it are masked, so that its own layer
still runs, the scores of those columns keep learning through the mask, and the channel can come
back. Channels that are masked at the end are removed, without changing the outputs.
"""

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.kinds import makes_in_columns
from edgekd.stages.prune.recovery import train_to_the_end
from edgekd.stages.prune.scoring import Scores, unit_scores
from edgekd.stages.prune.sparse import MOVE_EVERY
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import make_pools, removals, share_out
from edgekd.stages.prune.weights import MovingMask, cubic_share, moving_masks
from edgekd.training.context import Context

Removals = Mapping[str, Sequence[int]]


def scored_by_moving(
    module: nn.Module,
    groups: Sequence[Group],
    spec: PruneSpec,
    criterion: Criterion,
    amount: float,
    context: Context,
    epochs: int,
) -> tuple[nn.Module, Scores]:
    """A copy trained behind masks of up to `amount` of its channels, and the scores it ends with.

    The amount rises by the cubic schedule over all steps (Sanh et al. 2020, section 4).
    """
    module = copy.deepcopy(module)
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    names = _names(module, groups)
    with moving_masks(module, names, criterion) as masks:

        def on_step(step: int, total: int) -> None:
            if step % MOVE_EVERY == 0 or step == total:
                part = amount * cubic_share(1.0, step / total)
                gone = _worst(module, groups, spec, criterion, _scores(masks, criterion), part)
                _silence(module, groups, masks, gone)

        train_to_the_end(module, context, epochs, on_step=on_step)
        scores = {name: value.clone() for name, value in _scores(masks, criterion).items()}
    return module.eval(), scores


def _names(module: nn.Module, groups: Sequence[Group]) -> dict[str, None]:
    """Every weight that a channel of the groups runs through."""
    layers = dict.fromkeys(member.layer for group in groups for member in group.members)
    names: dict[str, None] = {}
    for layer in layers:
        if isinstance(getattr(module.get_submodule(layer), "weight", None), nn.Parameter):
            names[f"{layer}.weight"] = None
    return names


def _scores(masks: Mapping[str, MovingMask], criterion: Criterion) -> Scores:
    return {
        name: criterion.finish(mask.scores, mask.scores, mask.scores, 1)
        for name, mask in masks.items()
    }


def _worst(
    module: nn.Module,
    groups: Sequence[Group],
    spec: PruneSpec,
    criterion: Criterion,
    scores: Scores,
    amount: float,
) -> Removals:
    scored = {group.name: unit_scores(module, group, scores, criterion) for group in groups}
    pools = make_pools(groups, scored, {}, spec.multiple)
    return removals(groups, pools, share_out(pools, spec, amount, {}))


def _silence(
    module: nn.Module,
    groups: Sequence[Group],
    masks: Mapping[str, MovingMask],
    gone: Removals,
) -> None:
    for mask_of_layer in masks.values():
        mask_of_layer.mask.fill_(True)
    for group in groups:
        roots = set(gone.get(group.name, ()))
        for member in group.members:
            mask = masks.get(f"{member.layer}.weight")
            if member.axis != "in" or mask is None:
                continue
            pairs = zip(member.indices, member.roots, strict=True)
            inputs = [index for index, root in pairs if root in roots]
            hide_inputs(module.get_submodule(member.layer), mask.mask, inputs)


def hide_inputs(layer: nn.Module, mask: Tensor, inputs: Sequence[int]) -> None:
    """Set to False what a layer multiplies its inputs of these numbers with, in place."""
    groups = int(getattr(layer, "groups", 1))
    numbers = torch.tensor(list(inputs), dtype=torch.int64)
    if makes_in_columns(layer):
        mask[numbers] = False
        return
    if groups == 1:
        mask[:, numbers] = False
        return
    width, rows = mask.shape[1], mask.shape[0] // groups
    for number in inputs:
        first = number // width * rows
        mask[first : first + rows, number % width] = False
