"""Checks of a pruning against the model, made before any training."""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.stages._replacing import GIVE_FACTORY
from edgekd.stages.prune.allocation import Pool
from edgekd.stages.prune.blocks import (
    Block,
    block_pools,
    first_blocks,
    remove_blocks,
    selected_blocks,
)
from edgekd.stages.prune.by_cost import Measure, unit_of
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.granularity import block_of, pattern_of, removed
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.selection import UNSCORED, listed_reasons
from edgekd.stages.prune.spec import PruneSpec
from edgekd.stages.prune.structured import (
    cost_of,
    headless,
    make_pools,
    selected_groups,
    share_out,
    smallest,
    units_of,
    unreachable,
)
from edgekd.stages.prune.weights import kernels, unfit_kernels
from edgekd.values.tree import Tree


def moving_faults(
    module: nn.Module, name: str, epochs: int, allocation: str, where: str
) -> list[EdgekdError]:
    """Faults of a criterion whose masks move while the model trains."""
    faults: list[EdgekdError] = []
    if not epochs:
        found = f"'{name}' prunes during training, but epochs is 0"
        hint = "set epochs, or use a criterion such as taylor"
        faults.append(InputError(found, where=f"{where}.epochs", hint=hint))
    if allocation in ("sensitivity", "cost"):
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


def allocation_faults(allocation: str, granularity: str, where: str) -> list[EdgekdError]:
    """A fault where the cost can't decide: zeros save nothing, and a block is all or nothing."""
    if allocation != "cost" or removed(granularity) is not None:
        return []
    return [
        InputError(
            f"the cost does not decide between {granularity}",
            where=f"{where}.allocation",
            allowed="uniform, global, sensitivity; or granularity = 'channels', 'heads', 'neurons'",
        )
    ]


def order_faults(name: str, reads: str, granularity: str, where: str) -> list[EdgekdError]:
    """A fault where an order of channels and blocks says nothing of what is removed."""
    if reads != "order" or removed(granularity) is not None or granularity == "blocks":
        return []
    return [
        InputError(
            f"'{name}' is an order of channels and blocks: it says nothing of {granularity}",
            where=f"{where}.criterion",
            hint="granularity = 'channels', or a criterion such as magnitude-l2",
        )
    ]


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
        selection = selected_groups(module, example, spec, criterion)
    except InputError as error:
        return [error]
    groups = selection.chosen
    if not groups and selection.left:
        return [_nothing_left(selection.left, spec.kind, where)]
    if not groups:
        text, hint = f"there are no {spec.kind} to remove except the ignored ones", ""
        if spec.kind == "heads":
            text += "".join(f"; '{name}': {why}" for name, why in headless(module, example))
            hint = "granularity = 'channels' or 'neurons' removes other units"
        return [InputError(text, where=where, hint=hint)]
    if budget is not None:
        measure = spec.measure
        whole = cost_of(module, example, measure)
        least = smallest(module, example, groups, spec.multiple, measure)
        if least > budget * whole:
            fault = unreachable(least, budget * whole, measure)
            return [InputError(fault.message, where=f"{where}.budget", hint=fault.hint)]
        return []
    assert amount is not None
    return _amount_faults(groups, spec, amount, where)


def _nothing_left(left: Mapping[str, str], what: str, where: str) -> InputError:
    """The fault where nothing can be pruned, with the reasons."""
    unread = all(reason in UNSCORED for reason in left.values())
    hint = "granularity = 'weights' sets single weights to zero"
    return InputError(
        f"no {what} can be pruned: {listed_reasons(left)}",
        where=f"{where}.criterion" if unread else where,
        hint="'edgekd methods criterion' lists other criteria" if unread else hint,
    )


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
    selection = selected_blocks(module, example, spec, criterion)
    blocks = selection.chosen
    if not blocks and selection.left:
        return [_nothing_left(selection.left, "blocks", where)]
    if not blocks:
        text = "there is no residual block with a plain shortcut except the ignored ones"
        return [InputError(text, where=where, hint="granularity = 'channels' needs none")]
    if budget is not None:
        return _block_budget_faults(module, example, blocks, budget, spec.measure, where)
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
    module: nn.Module,
    example: Tree,
    blocks: Sequence[Block],
    budget: float,
    measure: Measure,
    where: str,
) -> list[EdgekdError]:
    """A fault for a budget that is out of reach even without every removable block."""
    allowed = budget * cost_of(module, example, measure)
    smaller = remove_blocks(module, example, [block.name for block in blocks])
    least = cost_of(smaller, example, measure)
    if least <= allowed:
        return []
    return [
        InputError(
            f"a budget of {allowed:,.0f} {unit_of(measure)} is out of reach: without any of its "
            f"{len(blocks)} removable blocks it still has {least:,.0f}",
            where=f"{where}.budget",
            hint="raise the budget, or prune channels",
        )
    ]


def _blocks_gone(blocks: Sequence[Block], spec: PruneSpec, amount: float) -> int:
    worth = dict.fromkeys((block.name for block in blocks), 1.0)
    pools, _ = block_pools(blocks, worth, first_blocks(blocks), spec)
    return len(blocks) - sum(share_out(pools, spec, amount, {}).values())


def weight_faults(
    module: nn.Module, criterion: str, reads: str, spec: PruneSpec, granularity: str, where: str
) -> list[EdgekdError]:
    """Faults of setting weights to zero by a criterion of that name that `reads` something."""
    faults: list[EdgekdError] = []
    if reads != "weights":
        faults.append(
            InputError(
                f"'{criterion}' scores channels, not single weights",
                where=f"{where}.criterion",
                hint="granularity = 'channels', or a criterion such as magnitude-l1",
            )
        )
    faults += _pattern_faults(granularity, where)
    if faults or kernels(module, spec.ignores, granularity):
        return faults
    left = unfit_kernels(module, spec.ignores, granularity)
    if left:
        return [_nothing_left(left, "layers", where)]
    return [InputError("there are no weights to prune except the ignored ones", where=where)]


def _pattern_faults(granularity: str, where: str) -> list[EdgekdError]:
    """A fault for a pattern or a block that makes no sense."""
    pattern, block = pattern_of(granularity), block_of(granularity)
    text = allowed = ""
    if pattern and not 0 < pattern[0] < pattern[1]:
        text = f"the pattern {granularity} prunes nothing or everything"
        allowed = "N:M with 0 < N < M, such as 2:4"
    if block and block[0] * block[1] < 2:
        text = f"{granularity} is not a block"
        allowed = "ROWSxCOLUMNS such as 4x4; 'weights' for single ones"
    return [InputError(text, where=f"{where}.granularity", allowed=allowed)] if text else []
