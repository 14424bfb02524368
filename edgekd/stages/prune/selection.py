"""What pruning cuts, and what it leaves alone: what the recipe does not ignore but can't be cut."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from edgekd.network.cost import parameter_count
from edgekd.network.taps import is_within
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.groups import Group
from edgekd.stages.prune.kinds import NORMS
from edgekd.stages.prune.scoring import scored_members

NO_NORM = "it is not followed by a normalization layer whose scale can be read"
NO_NORM_INSIDE = "it holds no normalization layer whose scale can be read"
UNREAD = "it has no weights or outputs that this criterion can read"
UNSCORED = (NO_NORM, NO_NORM_INSIDE, UNREAD)
"""The reasons that are the criterion's."""

_SHOWN = 4
"""The most reasons in a list, and the most layers named for each."""

Unit = TypeVar("Unit")


@dataclass(frozen=True)
class Selection(Generic[Unit]):
    """The groups or blocks that are cut, and the layers (or blocks) that are left alone, each with
    the reason."""

    chosen: list[Unit]
    left: Mapping[str, str]


def select_groups(
    module: nn.Module, wanted: Sequence[Group], criterion: Criterion
) -> Selection[Group]:
    """Divides the wanted groups into those that can be cut by scores of the criterion, and the
    layers of the others."""
    reasons = {each.name: each.reason or _unscored(module, each, criterion) for each in wanted}
    chosen = [group for group in wanted if not reasons[group.name]]
    cut = {layer for group in chosen for layer in group.layers}
    left: dict[str, str] = {}
    for group in wanted:
        if reasons[group.name]:
            for layer in sorted(_producers(module, group) - cut):
                left.setdefault(layer, reasons[group.name])
    return Selection(chosen, left)


def _unscored(module: nn.Module, group: Group, criterion: Criterion) -> str:
    if scored_members(module, group, criterion):
        return ""
    return NO_NORM if criterion.reads == "norms" else UNREAD


def _producers(module: nn.Module, group: Group) -> set[str]:
    """The layers that compute a group's channels, without the norms that pass them on."""
    layers = {name for name in group.layers if not isinstance(module.get_submodule(name), NORMS)}
    return layers or {group.root}


def left_note(module: nn.Module, left: Mapping[str, str], granularity: str) -> str:
    """How the plan and the report tell what stays: "3 layers (12% of the parameters) ..."; empty if
    nothing does."""
    if not left:
        return ""
    inside = [
        value.numel()
        for name, value in module.named_parameters()
        if is_within(name.rpartition(".")[0] or name, left)
    ]
    share = f"({sum(inside) / max(1, parameter_count(module)):.0%} of the parameters)"
    what = "block" if granularity == "blocks" else "layer"
    several = f"{what}s {share} are" if len(left) > 1 else f"{what} {share} is"
    return f"{len(left)} {several} not pruned: {listed_reasons(left)}"


def listed_reasons(left: Mapping[str, str]) -> str:
    """The layers by reason, the most frequent first: "'a', 'b' and 3 more: reason; 'c': another".
    Reasons that differ in numbers alone count as one."""
    alike: dict[str, list[str]] = {}
    for name, reason in left.items():
        alike.setdefault(re.sub(r"\d+", "#", reason), []).append(name)
    by_count = sorted(alike.values(), key=len, reverse=True)
    parts = [f"{_named(names)}: {left[names[0]]}" for names in by_count[:_SHOWN]]
    hidden = sum(len(names) for names in by_count[_SHOWN:])
    return "; ".join([*parts, *([f"{hidden} more for other reasons"] if hidden else [])])


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN} more" if len(names) > _SHOWN else shown
