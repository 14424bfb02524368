"""Every reason why a pruning can't work, found before anything is trained."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from edgekd.cost import totals
from edgekd.criteria import Criterion
from edgekd.errors import EdgekdError, InputError
from edgekd.pruning.channels import Group
from edgekd.pruning.scoring import NORMS
from edgekd.pruning.structured import (
    Wish,
    make_pools,
    share_out,
    smallest,
    units_of,
    unreachable,
    wanted_groups,
)
from edgekd.pruning.weights import kernels
from edgekd.taps import layer_names, no_such_layer


def ignore_faults(module: nn.Module, ignore: Sequence[str], where: str) -> list[EdgekdError]:
    """Names in `ignore` that are no layers."""
    known = layer_names(module)
    return [no_such_layer(name, known, f"{where}.ignore") for name in ignore if name not in known]


def float_faults(module: nn.Module, form: str, what: str, where: str) -> list[EdgekdError]:
    """A quantized candidate, or an exported program, whose layers can't be replaced."""
    if form == "int8":
        hint = "put this stage before the quantize stage"
        return [InputError(f"a quantized model can't be {what}", where=where, hint=hint)]
    if isinstance(module, torch.fx.GraphModule):
        return [
            InputError(
                f"an exported program can't be {what}: its layers and shapes are fixed",
                where=where,
                hint="give the model as factory and weights; granularity = 'weights' works on both",
            )
        ]
    return []


def channel_faults(
    module: nn.Module,
    example: Tensor,
    wish: Wish,
    criterion: Criterion,
    amount: float | None,
    budget: float | None,
    where: str,
) -> list[EdgekdError]:
    """What stands against removing channels: by layer name."""
    try:
        groups = wanted_groups(module, example, wish)
    except InputError as error:
        return [error]
    if not groups:
        what = "heads" if wish.heads_only else "channels"
        return [InputError(f"there are no {what} to remove besides the ignored ones", where=where)]
    stuck = [group for group in groups if group.reason]
    faults: list[EdgekdError] = [
        InputError(
            f"the channels of '{group.name}' can't be removed: {group.reason}",
            where=where,
            hint=f"ignore = [{', '.join(repr(each.name) for each in stuck)}]",
        )
        for group in stuck
    ]
    if not faults and criterion.reads == "norms":
        faults += _norm_faults(module, groups, where)
    if faults:
        return faults
    if budget is not None:
        whole = totals(module, example).macs
        least = smallest(module, example, groups, wish.multiple)
        if least > budget * whole:
            fault = unreachable(least, budget * whole)
            return [InputError(fault.message, where=f"{where}.budget", hint=fault.hint)]
        return []
    assert amount is not None
    return _amount_faults(groups, wish, amount, where)


def _norm_faults(module: nn.Module, groups: Sequence[Group], where: str) -> list[EdgekdError]:
    bare = [
        group.name
        for group in groups
        if not any(isinstance(module.get_submodule(m.layer), NORMS) for m in group.members)
    ]
    return [
        InputError(
            f"'{name}' has no normalisation behind it whose scale could be read",
            where=f"{where}.criterion",
            hint=f"ignore = [{', '.join(map(repr, bare))}], or another criterion",
        )
        for name in bare
    ]


def _amount_faults(
    groups: Sequence[Group], wish: Wish, amount: float, where: str
) -> list[EdgekdError]:
    first: Mapping[str, int] = units_of(groups)
    scores = {name: torch.ones(count) for name, count in first.items()}
    pools = make_pools(groups, scores, first, wish.multiple)
    if wish.allocation != "uniform":
        return []
    empty = [pool for pool in pools if pool.first * (1 - amount) < 0.5]
    if empty:
        return [
            InputError(
                f"an amount of {amount} leaves no channel in '{pool.name}', which has {pool.first}",
                where=f"{where}.amount",
                allowed=f"at most {1 - 1 / pool.first:.2f} for this layer",
            )
            for pool in empty
        ]
    if share_out(pools, wish, amount, {}) == dict(first):
        return [
            InputError(
                f"an amount of {amount} removes nothing: channels go in multiples of "
                f"{wish.multiple}, as the target wants them",
                where=f"{where}.amount",
                hint="raise the amount",
            )
        ]
    return []


def weight_faults(
    module: nn.Module, wish: Wish, pattern: tuple[int, int] | None, where: str
) -> list[EdgekdError]:
    """What stands against zeroing single weights: by layer name for N:M."""
    found = kernels(module, wish.ignores)
    if not found:
        return [InputError("there are no weights to prune besides the ignored ones", where=where)]
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
    layers = [name.rpartition(".")[0] or name for name in odd]
    return [
        InputError(
            f"'{layer}' has {count} input channels a filter, which {among} does not divide",
            where=f"{where}.granularity",
            hint=f"ignore = [{', '.join(map(repr, layers))}]",
        )
        for layer, count in zip(layers, odd.values(), strict=True)
    ]
