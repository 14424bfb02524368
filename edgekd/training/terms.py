"""The losses of a recipe, made from their tables, with the layers that they read.

A number in a loss's table, its weight too, may be a table of its own that names a schedule.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import Taps
from edgekd.registry import LOSSES
from edgekd.training.layer_pairs import (
    Map,
    Pairing,
    attention_in,
    embedding_of,
    pairs_of,
    values_in,
)
from edgekd.training.losses import DepthsLoss, FeatureLoss, Loss, OutputLoss, ResponseLoss, Shape
from edgekd.training.schedules import (
    Balance,
    Schedule,
    TrainStep,
    checked,
    is_scheduled,
    schedule_for_parameter,
    schedule_for_weight,
)
from edgekd.training.teachers import Teacher
from edgekd.values.tables import Value, build, parse
from edgekd.values.tree import OutputName, Tree, leaf, named_leaves, sample_shapes

ALL = "all"
"""As a loss's output: each of them."""


class TwoOutputs(Value):
    """The output that a loss compares, where student and teacher call it differently."""

    student: str | int
    teacher: str | int


class LossTable(Value):
    """What every loss's table may have, besides the loss's own parameters."""

    name: str
    weight: float | dict[str, Any] = 1.0
    student: str | tuple[str, ...] | None = None
    teacher: str | tuple[str, ...] | None = None
    network: str | None = None
    layers: Literal["auto"] | None = None
    map: Map = "uniform"
    pairs: PositiveInt | None = None
    output: str | int | TwoOutputs | None = None


class _Weight(Value):
    weight: float = Field(ge=0.0, allow_inf_nan=False)


@dataclass(frozen=True)
class Term:
    """One loss as a recipe gives it: made, weighted, and with the layers that it reads.

    `student` and `teacher` are empty for a loss on outputs, and until `paired` has found them for
    one with a `pairing`. `network` names the teacher whose layers are meant. `weight` is the
    largest that there is where `weighting` changes it; `schedules` change the loss's parameters.
    `output` and `teacher_output` are compared instead of the output that the task reads, if set.
    """

    name: str
    loss: Loss
    weight: float
    student: tuple[str, ...]
    teacher: tuple[str, ...]
    network: str | None
    where: str
    weighting: Schedule | Balance | None = None
    schedules: Mapping[str, Schedule] = field(default_factory=dict)
    pairing: Pairing | None = None
    share: float = 1.0
    output: OutputName = None
    teacher_output: OutputName = None

    @property
    def reads_features(self) -> bool:
        """Whether a layer has to be tapped on both sides."""
        return bool(self.student) or self.pairing is not None

    @property
    def tapped(self) -> tuple[str, ...]:
        """The student's layers that a step needs: those compared, and one to balance on."""
        layer = self.weighting.layer if isinstance(self.weighting, Balance) else None
        return (*self.student, layer) if layer else self.student

    @property
    def learned(self) -> nn.Module:
        """What is trained with the student and discarded afterwards."""
        parts: list[nn.Module] = [self.loss, *self.schedules.values()]
        return nn.ModuleList([*parts, self.weighting] if self.weighting else parts)

    def set_to(self, step: TrainStep) -> None:
        """Give the loss the parameters of this step."""
        for key, schedule in self.schedules.items():
            setattr(self.loss, key, schedule(step))

    def weighted(
        self, value: Tensor, step: TrainStep, labels: Tensor, features: Mapping[str | None, Tensor]
    ) -> Tensor:
        """The loss's value by its weight in this step.

        `labels` is the weighted loss with the labels; `features` are the student's tapped layers,
        its outputs under None: both are what a balanced weight looks at.
        """
        weight: float | Tensor = self.weight
        if isinstance(self.weighting, Balance):
            weight = self.weighting(labels, value, features[self.weighting.layer])
        elif self.weighting is not None:
            weight = self.weighting(step)
        return weight * self.share * value


def terms_of(
    tables: Sequence[Mapping[str, Any]], where: str
) -> tuple[list[Term], list[EdgekdError]]:
    """The losses that can be made, and a fault for each of the others."""
    terms: list[Term] = []
    faults: list[EdgekdError] = []
    for number, table in enumerate(tables, 1):
        try:
            terms.append(_term(table, f"{where}: losses.{number}"))
        except EdgekdError as error:
            faults.extend(error.faults)
    return terms, faults


def _term(table: Mapping[str, Any], where: str) -> Term:
    common = {key: value for key, value in table.items() if key in LossTable.model_fields}
    own = {key: value for key, value in table.items() if key not in LossTable.model_fields}
    asked = parse(LossTable, common, where)
    loss, schedules = _made(asked.name, own, where)
    weight, weighting = weight_of(asked.weight, f"{where}: weight", where)
    student, teacher = _names(asked.student), _names(asked.teacher)
    student, teacher = student or teacher, teacher or student
    output, teacher_output = _outputs(asked.output)
    pairing = Pairing(asked.map, asked.pairs) if asked.layers else None
    compares_output = output is not None and isinstance(loss, FeatureLoss) and not student
    fault = None
    if not compares_output:
        fault = _layer_fault(asked.name, loss, student, teacher, pairing)
    if not fault and not asked.layers and {"map", "pairs"} & asked.model_fields_set:
        fault = "'map' and 'pairs' need layers = \"auto\""
    if not fault and output is not None:
        fault = _output_fault(asked.name, loss, bool(student or pairing))
    if fault:
        raise InputError(fault, where=where, hint="see the layers with 'edgekd inspect'")
    return Term(
        asked.name,
        loss,
        weight,
        student,
        teacher,
        asked.network,
        where,
        weighting,
        schedules,
        pairing,
        output=output,
        teacher_output=teacher_output,
    )


def _outputs(given: str | int | TwoOutputs | None) -> tuple[OutputName, OutputName]:
    """The outputs of student and teacher that a loss's table names."""
    if isinstance(given, TwoOutputs):
        return given.student, given.teacher
    return given, given


def _output_fault(name: str, loss: Loss, reads_layers: bool) -> str | None:
    if reads_layers:
        return f"'{name}' reads layers here: give either them or 'output'"
    if isinstance(loss, ResponseLoss) and loss.labelled:
        return f"'{name}' needs labels, which only the output that the task reads has"
    return None


def _made(name: str, own: Mapping[str, Any], where: str) -> tuple[Loss, dict[str, Schedule]]:
    """The loss, and the schedules of those parameters for which a table stands."""
    entry = LOSSES.get(name, where)
    schedules: dict[str, Schedule] = {}
    fixed = {key: value for key, value in own.items() if not is_scheduled(value)}
    for key in own.keys() - fixed.keys():
        place = f"{where}: {key}"
        if key not in entry.parameters or entry.parameters[key].annotation is not float:
            numbers = [k for k, p in entry.parameters.items() if p.annotation is float]
            raise InputError(
                f"'{name}' has no numeric parameter '{key}' to schedule",
                where=place,
                allowed=", ".join(numbers),
            )
        schedules[key] = schedule_for_parameter(own[key], place)
    loss: Loss = build(entry, {**fixed, **{k: s.bounds[1] for k, s in schedules.items()}}, where)
    for key, schedule in schedules.items():
        place = f"{where}: {key}"
        checked(partial(_again, entry, fixed, schedules, where), schedule, key, place)
        if not isinstance(getattr(loss, key, None), float | int):
            raise InputError(f"'{key}' of '{name}' can't change during training", where=place)
        if schedule.each_sample and not (isinstance(loss, ResponseLoss) and key == "temperature"):
            message = "one value per sample is only for the temperature of a loss on logits"
            raise InputError(message, where=place)
    return loss, schedules


def _again(
    entry: Any, fixed: Mapping[str, Any], schedules: Any, where: str, **changed: float
) -> Loss:
    others = {key: schedule.bounds[1] for key, schedule in schedules.items()}
    made: Loss = build(entry, {**fixed, **others, **changed}, where)
    return made


def weight_of(
    given: float | Mapping[str, Any], place: str, where: str
) -> tuple[float, Schedule | Balance | None]:
    """The largest value of the weight, and its schedule, if it has one."""
    if isinstance(given, Mapping):
        if not is_scheduled(given):
            hint = 'weight = { schedule = "linear", start = 0.9, end = 0.1 }'
            raise InputError("the table has no 'schedule'", where=place, hint=hint)
        weighting = schedule_for_weight(given, place)
        most = weighting.bounds[1] if isinstance(weighting, Schedule) else 1.0
        return most, weighting
    return parse(_Weight, {"weight": given}, where).weight, None


def _names(given: str | tuple[str, ...] | None) -> tuple[str, ...]:
    if given is None:
        return ()
    return (given,) if isinstance(given, str) else given


def _layer_fault(
    name: str,
    loss: Loss,
    student: tuple[str, ...],
    teacher: tuple[str, ...],
    pairing: Pairing | None,
) -> str | None:
    """What is wrong with the number of layers named, if anything."""
    if isinstance(loss, ResponseLoss | OutputLoss):
        named = student or teacher or pairing
        what = "logits" if isinstance(loss, ResponseLoss) else "outputs"
        return f"'{name}' compares {what} and reads no layer" if named else None
    if pairing is not None:
        return 'give either layers = "auto" or the layers\' names' if student or teacher else None
    if isinstance(loss, FeatureLoss):
        if not student:
            return (
                None
                if loss.accepts_outputs
                else f"'{name}' needs 'student' and 'teacher' layers, or layers = \"auto\""
            )
        if len(student) == len(teacher) == 1:
            return None
        return f"'{name}' reads one layer on each side, found {len(student)} and {len(teacher)}"
    if len(student) != len(teacher) or len(student) < loss.least:
        counts = f"found {len(student)} and {len(teacher)}"
        return (
            f"'{name}' reads at least {loss.least} layers, the same number on each side; {counts}"
        )
    return None


def source_of(term: Term, teachers: Sequence[Teacher]) -> Teacher | None:
    """The teacher whose layers a term reads: the one it names, or the first with any."""
    for teacher in teachers:
        if term.network in (None, teacher.name) and teacher.module is not None:
            return teacher
    return None


def paired(terms: Sequence[Term], student: nn.Module, teachers: Sequence[Teacher]) -> list[Term]:
    """The same terms with every `layers = "auto"` resolved: a loss on one layer stands once for
    each pair of blocks, with its weight divided; one on several layers takes all pairs.

    Raises `InputError` if a network has no blocks, or not the layers that the loss reads in them.
    """
    resolved: list[Term] = []
    for term in terms:
        source = source_of(term, teachers)
        if term.pairing is None or source is None or source.module is None:
            resolved.append(term)
        else:
            resolved += _resolved(term, term.pairing, student, source.module)
    return resolved


def _resolved(term: Term, asked: Pairing, student: nn.Module, teacher: nn.Module) -> list[Term]:
    pairs = pairs_of(student, teacher, asked, term.where)
    if isinstance(term.loss, DepthsLoss):
        if term.loss.deepest:
            pairs = pairs[-1:]
        mine, theirs = (
            _parts(term.loss.automatic, module, [pair[side] for pair in pairs], term.where)
            for side, module in enumerate((student, teacher))
        )
        fault = _layer_fault(term.name, term.loss, mine, theirs, None)
        if fault:
            raise InputError(fault, where=term.where, hint="there are too few blocks for 'auto'")
        return [replace(term, student=mine, teacher=theirs, pairing=None)]
    return [
        replace(
            term,
            loss=copy.deepcopy(term.loss),
            student=(mine,),
            teacher=(theirs,),
            share=term.share / len(pairs),
            pairing=None,
        )
        for mine, theirs in pairs
    ]


def spread(terms: Sequence[Term], student: nn.Module, example: Tree) -> list[Term]:
    """The same terms with every `output = "all"` resolved: the loss stands once for each output of
    real numbers, with its weight divided. Networks with one output each compare that."""
    if not any(term.output == ALL for term in terms):
        return list(terms)
    with evaluating(student), torch.no_grad():
        outputs = named_leaves(student(example), "output")
    names: list[OutputName] = [n for n, value in outputs.items() if value.is_floating_point()]
    names = [None] if len(outputs) == 1 else names
    return [
        each
        for term in terms
        for each in (_for_each(term, names) if term.output == ALL else [term])
    ]


def _for_each(term: Term, names: Sequence[OutputName]) -> list[Term]:
    return [
        replace(
            term,
            loss=copy.deepcopy(term.loss),
            output=name,
            teacher_output=name,
            share=term.share / len(names),
        )
        for name in names
    ]


def _parts(
    wanted: Sequence[str], module: nn.Module, blocks: Sequence[str], where: str
) -> tuple[str, ...]:
    """The layers of one network that a loss on several depths reads, in the order it wants."""
    names: list[str] = []
    for part in wanted:
        if part == "embedding":
            names.append(embedding_of(module, where))
        elif part == "attention":
            names += [attention_in(module, block, where) for block in blocks]
        elif part == "value":
            names += [values_in(module, block, where) for block in blocks]
        else:
            names += blocks
    return tuple(names)


def shapes_at(module: nn.Module, names: Sequence[str], example: Tree, where: str) -> list[Shape]:
    """The shapes, without the batch, of the named layers' outputs for an example."""
    with Taps(module, names, where) as taps, torch.no_grad():
        module(example)
        for name in names:
            if not isinstance(taps.outputs.get(name), Tensor):
                raise InputError(f"the layer '{name}' does not output a single tensor", where=where)
        return [tuple(taps.outputs[name].shape[1:]) for name in names]


def bridge(
    term: Term, student: nn.Module, teacher: nn.Module, example: Tree, shown: Tree | None = None
) -> None:
    """Make what the term's loss learns; `InputError` if the shapes can't be matched.

    `shown` is the example as the teacher sees it, if that is another view.
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


def fit_outputs(term: Term, student: nn.Module, data: Data) -> None:
    """Make what a loss on whole outputs learns; `InputError` if it can't read them."""
    with evaluating(student), torch.no_grad():
        read = student(data.example)
    if term.output is None:
        compared = data.task.main(read)
    else:
        compared = leaf(read, term.output, f"{term.where}: student")
    if not isinstance(compared, Tensor):
        message = f"'{term.name}' compares one output, and the task {data.task.name} reads several"
        raise InputError(message, where=term.where, hint="say which: output = 'NAME'")
    outputs = tuple(compared.shape[1:])
    try:
        if isinstance(term.loss, OutputLoss):
            term.loss.reads(data.example)
            targets_shape = sample_shapes(data.train.y)[0]
            term.loss.prepare(outputs, targets_shape, sample_shapes(data.example)[0])
        elif isinstance(term.loss, FeatureLoss):
            term.loss.prepare(outputs, outputs)
        elif isinstance(term.loss, DepthsLoss):
            term.loss.prepare([outputs], [outputs])
    except ValueError as error:
        raise InputError(str(error), where=term.where) from None
