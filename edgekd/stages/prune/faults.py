"""Checks of a pruning against the model, made before any training."""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError
from edgekd.network.cost import totals
from edgekd.stages._replacing import GIVE_FACTORY
from edgekd.stages.prune.allocation import Pool
from edgekd.stages.prune.blocks import (
    Block,
    block_pools,
    first_blocks,
    remove_blocks,
    wanted_blocks,
)
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.granularity import block_of, pattern_of
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.kinds import NORMS
from edgekd.stages.prune.scoring import scored_members
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import (
    headless,
    make_pools,
    share_out,
    smallest,
    units_of,
    unreachable,
    wanted_groups,
)
from edgekd.stages.prune.weights import kernels
from edgekd.values.tree import Tree

_SHOWN = 4
"""The most layers that one fault lists with their reasons."""


def moving_faults(
    module: nn.Module, name: str, epochs: int, allocation: str, where: str
) -> list[EdgekdError]:
    """Faults of a criterion whose masks move while the model trains."""
    faults: list[EdgekdError] = []
    if not epochs:
        found = f"'{name}' prunes during training, but epochs is 0"
        hint = "set epochs, or use a criterion such as taylor"
        faults.append(InputError(found, where=f"{where}.epochs", hint=hint))
    if allocation == "sensitivity":
        faults.append(
            InputError(
                f"'{name}' moves its masks during training, so sensitivity can't be measured",
                where=f"{where}.allocation",
                allowed="uniform, global",
            )
        )
    if isinstance(module, torch.fx.GraphModule):
        faults.append(
            InputError(
                f"'{name}' puts masks on layers, but an exported program has none",
                where=f"{where}.criterion",
                hint=f"{GIVE_FACTORY}, or use a criterion such as taylor",
            )
        )
    return faults


def channel_faults(
    module: nn.Module,
    example: Tree,
    spec: PruneSpec,
    criterion: Criterion,
    amount: float | None,
    budget: float | None,
    where: str,
) -> list[EdgekdError]:
    """Faults of removing channels, by layer name."""
    try:
        groups = wanted_groups(module, example, spec)
    except InputError as error:
        return [error]
    if not groups:
        text, hint = f"there are no {spec.kind} to remove except the ignored ones", ""
        if spec.kind == "heads":
            text += "".join(f"; '{name}': {why}" for name, why in headless(module, example))
            hint = "granularity = 'channels' or 'neurons' removes other units"
        return [InputError(text, where=where, hint=hint)]
    faults = _stuck_faults(groups, where)
    if not faults:
        faults += _unseen_faults(module, groups, criterion, where)
    if faults:
        return faults
    if budget is not None:
        whole = totals(module, example).macs
        least = smallest(module, example, groups, spec.multiple)
        if least > budget * whole:
            fault = unreachable(least, budget * whole)
            return [InputError(fault.message, where=f"{where}.budget", hint=fault.hint)]
        return []
    assert amount is not None
    return _amount_faults(groups, spec, amount, where)


def _stuck_faults(groups: Sequence[Group], where: str) -> list[EdgekdError]:
    """A fault for the groups that can't be cut, each with its reason, and how to ignore them."""
    stuck = [group for group in groups if group.reason]
    if not stuck:
        return []
    roots = ", ".join(repr(name) for name in dict.fromkeys(group.root for group in stuck))
    if len(stuck) == 1:
        message = f"the channels of '{stuck[0].name}' can't be removed: {stuck[0].reason}"
    else:
        listed = "; ".join(f"'{group.name}': {group.reason}" for group in stuck[:_SHOWN])
        more = f"; and {len(stuck) - _SHOWN} more" if len(stuck) > _SHOWN else ""
        message = f"the channels of {len(stuck)} layers can't be removed: {listed}{more}"
    return [InputError(message, where=where, hint=f"ignore = [{roots}]")]


def _unseen_faults(
    module: nn.Module, groups: Sequence[Group], criterion: Criterion, where: str
) -> list[EdgekdError]:
    """Faults for groups that the criterion can't score."""
    unseen = [group.name for group in groups if not scored_members(module, group, criterion)]
    if criterion.reads == "norms":
        return [_no_norm(name, unseen, where) for name in unseen]
    return [
        InputError(
            f"'{name}' has no weights or outputs that this criterion can read",
            where=f"{where}.criterion",
            hint=f"ignore = [{', '.join(map(repr, unseen))}], or another criterion",
        )
        for name in unseen
    ]


def _amount_faults(
    groups: Sequence[Group], spec: PruneSpec, amount: float, where: str
) -> list[EdgekdError]:
    first: Mapping[str, int] = units_of(groups)
    scores = {name: torch.ones(count) for name, count in first.items()}
    pools = make_pools(groups, scores, first, spec.multiple)
    if spec.allocation != "uniform":
        return []
    empty = [pool for pool in pools if pool.first > 1 and pool.first * (1 - amount) < 0.5]
    if empty:
        return [
            InputError(
                f"an amount of {amount} leaves no channel in '{pool.name}', which has {pool.first}",
                where=f"{where}.amount",
                allowed=f"at most {1 - 1 / pool.first:.2f} for this layer",
            )
            for pool in empty
        ]
    if share_out(pools, spec, amount, {}) == dict(first):
        text, hint = _nothing_removed(pools, spec, first)
        message = f"an amount of {amount} removes nothing: {text}"
        return [InputError(message, where=f"{where}.amount", hint=hint)]
    return []


def _nothing_removed(
    pools: Sequence[Pool], spec: PruneSpec, first: Mapping[str, int]
) -> tuple[str, str]:
    """Why an amount removes nothing, and what would remove something: the least amount in
    hundredths, or a finer target."""
    step = min(pool.step for pool in pools)
    text = f"each layer has at most {max(first.values())}"
    if step > 1:
        text += f", and {spec.kind} are removed in multiples of {step}, as the target requires"
    hundredths = (number / 100 for number in range(1, 100))
    enough = next((each for each in hundredths if share_out(pools, spec, each, {}) != first), None)
    if enough is not None:
        return text, f"amount = {enough} is the least that removes something"
    return text, "a target file with a smaller channel_multiple removes fewer at a time"


def block_faults(
    module: nn.Module,
    example: Tree,
    spec: PruneSpec,
    criterion: Criterion,
    amount: float | None,
    budget: float | None,
    where: str,
) -> list[EdgekdError]:
    """Faults of removing whole residual blocks."""
    blocks = wanted_blocks(module, example, spec)
    if not blocks:
        text = "there is no residual block with a plain shortcut except the ignored ones"
        return [InputError(text, where=where, hint="granularity = 'channels' needs none")]
    if criterion.reads == "norms":
        bare = [
            block.name
            for block in blocks
            if not any(isinstance(p, NORMS) for p in module.get_submodule(block.name).modules())
        ]
        if bare:
            return [_no_norm(bare[0], bare, where)]
    if budget is not None:
        return _block_budget_faults(module, example, blocks, budget, where)
    assert amount is not None
    if spec.allocation == "uniform" and not _blocks_gone(blocks, spec, amount):
        return [
            InputError(
                f"an amount of {amount} removes none of {len(blocks)} blocks",
                where=f"{where}.amount",
                hint="raise the amount, or set allocation = 'global'",
            )
        ]
    return []


def _block_budget_faults(
    module: nn.Module, example: Tree, blocks: Sequence[Block], budget: float, where: str
) -> list[EdgekdError]:
    """A fault for a budget that is out of reach even without every removable block."""
    allowed = budget * totals(module, example).macs
    smaller = remove_blocks(module, example, [block.name for block in blocks])
    least = totals(smaller, example).macs
    if least <= allowed:
        return []
    return [
        InputError(
            f"a budget of {allowed:,.0f} MACs is out of reach: without any of its "
            f"{len(blocks)} removable blocks it still has {least:,.0f}",
            where=f"{where}.budget",
            hint="raise the budget, or prune channels",
        )
    ]


def _blocks_gone(blocks: Sequence[Block], spec: PruneSpec, amount: float) -> int:
    worth = dict.fromkeys((block.name for block in blocks), 1.0)
    pools, _ = block_pools(blocks, worth, first_blocks(blocks), spec)
    return len(blocks) - sum(share_out(pools, spec, amount, {}).values())


def _no_norm(name: str, bare: Sequence[str], where: str) -> InputError:
    return InputError(
        f"'{name}' is not followed by a normalization layer whose scale can be read",
        where=f"{where}.criterion",
        hint=f"ignore = [{', '.join(map(repr, bare))}], or another criterion",
    )


def weight_faults(
    module: nn.Module, spec: PruneSpec, granularity: str, where: str
) -> list[EdgekdError]:
    """Faults of zeroing weights, by layer name for N:M patterns and blocks."""
    found = kernels(module, spec.ignores, granularity)
    if not found:
        return [InputError("there are no weights to prune except the ignored ones", where=where)]
    pattern, block = pattern_of(granularity), block_of(granularity)
    if block:
        return _weight_block_faults(found, block, where)
    if pattern is None:
        return []
    keep, among = pattern
    if not 0 < keep < among:
        return [
            InputError(
                f"the pattern {keep}:{among} prunes nothing or everything",
                where=f"{where}.granularity",
                allowed="N:M with 0 < N < M, such as 2:4",
            )
        ]
    odd = {name: value.shape[1] for name, value in found.items() if value.shape[1] % among}
    return [
        InputError(
            f"'{layer}' has {count} input channels per filter, which is not divisible by {among}",
            where=f"{where}.granularity",
            hint=f"ignore = [{', '.join(map(repr, _layers(odd)))}]",
        )
        for layer, count in zip(_layers(odd), odd.values(), strict=True)
    ]


def _layers(names: Iterable[str]) -> list[str]:
    return [name.rpartition(".")[0] or name for name in names]


def _weight_block_faults(
    found: Mapping[str, Tensor], block: tuple[int, int], where: str
) -> list[EdgekdError]:
    rows, columns = block
    if rows * columns < 2:
        return [
            InputError(
                f"{rows}x{columns} is not a block",
                where=f"{where}.granularity",
                allowed="ROWSxCOLUMNS such as 4x4; 'weights' for single ones",
            )
        ]
    odd = {
        name: tuple(value.shape[:2])
        for name, value in found.items()
        if value.shape[0] % rows or value.shape[1] % columns
    }
    return [
        InputError(
            f"'{layer}' has {shape[0]} outputs and {shape[1]} inputs, which blocks of "
            f"{rows}x{columns} don't divide",
            where=f"{where}.granularity",
            hint=f"ignore = [{', '.join(map(repr, _layers(odd)))}]",
        )
        for layer, shape in zip(_layers(odd), odd.values(), strict=True)
    ]
