"""The losses of a recipe, made from their tables, with the layers that they read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.config import Value, build, parse
from edgekd.errors import EdgekdError, Faults, InputError
from edgekd.losses import DepthsLoss, FeatureLoss, Loss, ResponseLoss, Shape
from edgekd.registry import LOSSES
from edgekd.taps import Taps
from edgekd.teachers import Teacher


class LossTable(Value):
    """What every loss's table may have, besides the loss's own parameters."""

    name: str
    weight: float = Field(default=1.0, ge=0.0, allow_inf_nan=False)
    student: str | tuple[str, ...] | None = None
    teacher: str | tuple[str, ...] | None = None
    network: str | None = None


@dataclass(frozen=True)
class Term:
    """One loss as a recipe gives it: made, weighted, and with the layers that it reads.

    `student` and `teacher` are empty for a loss on logits. `network` names the teacher whose
    layers are meant.
    """

    name: str
    loss: Loss
    weight: float
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    network: str | None
    where: str

    @property
    def reads_features(self) -> bool:
        """Whether a layer has to be tapped on both sides."""
        return bool(self.student)


def terms_of(
    tables: Sequence[Mapping[str, Any]], where: str
) -> tuple[list[Term], list[EdgekdError]]:
    """The losses that can be made, and a fault for each one that can't."""
    terms: list[Term] = []
    faults: list[EdgekdError] = []
    for number, table in enumerate(tables, 1):
        try:
            terms.append(_term(table, f"{where}: losses.{number}"))
        except Faults as several:
            faults.extend(several.faults)
        except EdgekdError as fault:
            faults.append(fault)
    return terms, faults


def _term(table: Mapping[str, Any], where: str) -> Term:
    common = {key: value for key, value in table.items() if key in LossTable.model_fields}
    own = {key: value for key, value in table.items() if key not in LossTable.model_fields}
    asked = parse(LossTable, common, where)
    entry = LOSSES.get(asked.name, where)
    loss: Loss = build(entry, own, where)
    student, teacher = _names(asked.student), _names(asked.teacher)
    student, teacher = student or teacher, teacher or student
    fault = _layer_fault(asked.name, loss, student, teacher)
    if fault:
        raise InputError(fault, where=where, hint="see the layers with 'edgekd inspect'")
    return Term(asked.name, loss, asked.weight, student, teacher, asked.network, where)


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given


def _layer_fault(
    name: str, loss: Loss, student: tuple[str, ...], teacher: tuple[str, ...]
) -> str | None:
    """What is wrong with the number of layers named, if anything is."""
    if isinstance(loss, ResponseLoss):
        return f"'{name}' compares logits and reads no layer" if student or teacher else None
    if isinstance(loss, FeatureLoss):
        if not student:
            return (
                None if loss.outputs_will_do else f"'{name}' needs 'student' and 'teacher' layers"
            )
        if len(student) == len(teacher) == 1:
            return None
        return f"'{name}' reads one layer on each side, found {len(student)} and {len(teacher)}"
    if len(student) != len(teacher) or len(student) < loss.least:
        found = f"found {len(student)} and {len(teacher)}"
        return f"'{name}' reads {loss.least} or more layers, as many on each side; {found}"
    return None


def source_of(term: Term, teachers: Sequence[Teacher]) -> Teacher | None:
    """The teacher whose layers a term reads: the one it names, or the first with any."""
    for teacher in teachers:
        if term.network in (None, teacher.name) and teacher.module is not None:
            return teacher
    return None


def shapes_at(module: nn.Module, names: Sequence[str], example: Tensor, where: str) -> list[Shape]:
    """The shapes, without the batch, of the named layers' outputs for an example."""
    with Taps(module, names, where) as taps, torch.no_grad():
        module(example)
        for name in names:
            if not isinstance(taps.outputs.get(name), Tensor):
                raise InputError(
                    f"the layer '{name}' gives no single tensor in a forward pass", where=where
                )
        return [tuple(taps.outputs[name].shape[1:]) for name in names]


def bridge(
    term: Term, student: nn.Module, teacher: nn.Module, example: Tensor, shown: Tensor | None = None
) -> None:
    """Make what the term's loss learns; `InputError` where the shapes can't be brought together.

    `shown` is the example as the teacher sees it, where that is another view of it.
    """
    mine = shapes_at(student, term.student, example, f"{term.where}: student")
    seen = example if shown is None else shown
    theirs = shapes_at(teacher, term.teacher, seen, f"{term.where}: teacher")
    try:
        if isinstance(term.loss, DepthsLoss):
            term.loss.prepare(mine, theirs)
        elif isinstance(term.loss, FeatureLoss):
            term.loss.prepare(mine[0], theirs[0])
    except ValueError as error:
        raise InputError(str(error), where=term.where) from None
