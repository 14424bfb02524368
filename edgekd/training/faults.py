"""Checks of a teaching before its first step: data, weights, logits and layers."""

from collections.abc import Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from edgekd.data.inputs import Held
from edgekd.data.samples import Data, Samples, is_image
from edgekd.data.tasks import Task
from edgekd.errors import EdgekdError, InputError, first_line, nearest
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import layer_names, no_such_layer
from edgekd.training.logits import teacher_logits
from edgekd.training.losses import FeatureLoss, OutputLoss, ResponseLoss
from edgekd.training.teachers import Teacher
from edgekd.training.teaching import Teaching
from edgekd.training.terms import Term, bridge, fit_outputs, paired, source_of
from edgekd.values.tree import described, leaf, leaf_names, leaves, rows


def data_faults(data: Data, where: str) -> list[EdgekdError]:
    """Faults for NaN or infinity in inputs, labels out of range, and augmentation of non-images."""
    faults: list[EdgekdError] = []
    for part in ("train", "validation"):
        samples = getattr(data, part)
        place = f"{where}: data '{data.name}', {part}"
        if isinstance(samples.inputs, Held):  # a stream is checked as it is read
            broken = _not_finite(samples)
            if broken:
                faults.append(InputError(f"{broken} samples contain NaN or infinity", where=place))
        faults += data.task.target_faults(samples.y, data.classes, place)
    if not len(data.train):
        faults.append(InputError("no samples to train on", where=f"{where}: data '{data.name}'"))
    if data.augmentation.active and not is_image(data.example):
        faults.append(
            InputError(
                f"flip and shift need images, but the samples have shape {described(data.example)}",
                where=f"{where}: data '{data.name}'",
                allowed="(channels, height, width)",
            )
        )
    return faults


def _not_finite(samples: Samples) -> int:
    """How many samples have NaN or infinity among their inputs."""
    count = 0
    for x, _ in samples.batches(1024):
        floats = [leaf for leaf in leaves(x) if leaf.is_floating_point() and leaf.numel()]
        if not all(bool(leaf.isfinite().all()) for leaf in floats):
            rows = [leaf.reshape(len(leaf), -1).isfinite().all(1) for leaf in floats]
            count += int((~torch.stack(rows).all(0)).sum())
    return count


def weight_faults(student: nn.Module, teachers: Sequence[Teacher], where: str) -> list[EdgekdError]:
    """Faults for NaN or infinity in the weights of the student or of a teacher."""
    networks = [("student", student)]
    networks += [(f"teacher {t.name}", t.module) for t in teachers if t.module is not None]
    faults: list[EdgekdError] = []
    for name, network in networks:
        for key, value in network.named_parameters():
            if not bool(value.isfinite().all()):
                faults.append(
                    InputError(f"NaN or infinity in the weights '{key}'", where=f"{where}: {name}")
                )
                break
    return faults


def logit_faults(
    student: nn.Module, teachers: Sequence[Teacher], data: Data, where: str
) -> list[EdgekdError]:
    """Faults for outputs that are not logits, or whose shape differs from the classes or a
    teacher's."""
    with evaluating(student), torch.no_grad():
        try:
            mine = data.task.main(student(data.example))
        except EdgekdError as error:
            return [error]
        except (RuntimeError, TypeError, ValueError) as error:
            return [_forward_fault(error, data, f"{where}: student")]
    faults: list[EdgekdError] = []
    shape, y = _shape(mine), rows(data.train.y, slice(0, 1))
    fault = data.task.output_fault(mine, y, data.classes, f"{where}: student")
    if fault is not None:
        return [fault]
    for teacher in teachers:
        place = f"{where}: teacher {teacher.name}"
        try:
            with evaluating(teacher.module) if teacher.module is not None else nullcontext():
                theirs = teacher_logits(teacher, data.shown)
        except EdgekdError as error:
            faults.append(error)
            continue
        except (RuntimeError, TypeError, ValueError) as error:
            faults.append(_forward_fault(error, data, place))
            continue
        if _shape(theirs) != shape:
            message = f"gives logits of shape {_said(theirs)}, but the student gives {_said(mine)}"
            hint = "teacher and student must have the same classes"
            faults.append(InputError(message, where=place, hint=hint))
    return faults


def task_faults(
    terms: Sequence[Term], smoothing: float, data: Data, where: str
) -> list[EdgekdError]:
    """Faults for losses and settings that don't apply to the data's task or labels."""
    faults: list[EdgekdError] = []
    task = data.task
    if smoothing and not task.smooths:
        message = f"the targets of {task.name} can't be smoothed"
        faults.append(InputError(message, where=f"{where}: label_smoothing", allowed="0"))
    for term in terms:
        fault = _meaning_fault(term, task) or _unlabelled_fault(term, data)
        if fault is not None:
            faults.append(fault)
    return faults


def _unlabelled_fault(term: Term, data: Data) -> InputError | None:
    """A loss that reads every sample's label, where some have none."""
    if not (isinstance(term.loss, ResponseLoss) and term.loss.labelled and data.unlabelled):
        return None
    message = (
        f"'{term.name}' reads labels, but {data.unlabelled:,} of {len(data.train):,} training "
        "samples have none"
    )
    hint = "'kl' and the losses on layers need no labels"
    return InputError(message, where=term.where, hint=hint)


def row_faults(teaching: Teaching, data: Data, taught: bool, where: str) -> list[EdgekdError]:
    """Faults for sample weights or calibrated teachers if rows of logits have no labels."""
    faults: list[EdgekdError] = []
    requested = {
        "sample_weights": teaching.sample_weights != "equal",
        "calibrate_teachers": teaching.calibrate_teachers,
    }
    for key in (key for key, is_set in requested.items() if is_set):
        if not (data.task.has_rows and data.task.labels_rows):
            message = f"the task {data.task.name} has no logits with one label each"
            faults.append(InputError(message, where=f"{where}: {key}"))
    if teaching.sample_weights == "disagreement" and not taught:
        message = "there is no teacher to disagree with"
        faults.append(InputError(message, where=f"{where}: sample_weights"))
    if teaching.calibrate_teachers and not len(data.validation):
        message = "there are no validation samples to fit a temperature on"
        faults.append(InputError(message, where=f"{where}: calibrate_teachers"))
    return faults


def _meaning_fault(term: Term, task: Task) -> InputError | None:
    loss = term.loss
    if isinstance(loss, OutputLoss | FeatureLoss) and loss.tasks and task.name not in loss.tasks:
        message = (
            f"'{term.name}' is for {' and '.join(loss.tasks)}, but the data's task is {task.name}"
        )
        return InputError(message, where=term.where)
    if not isinstance(loss, ResponseLoss):
        return None
    if not task.has_rows:
        message = f"'{term.name}' compares logits of classes; {task.name} has none"
        hint = "use a loss for this task, or one on layers"
        return InputError(message, where=term.where, hint=hint)
    if loss.labelled and not task.labels_rows:
        message = f"'{term.name}' needs a label for every row of logits; {task.name} has none"
        return InputError(message, where=term.where)
    return None


def feature_faults(
    term: Term, student: nn.Module, teachers: Sequence[Teacher], data: Data
) -> list[EdgekdError]:
    """Faults for missing layers, black boxes without layers, and shapes that can't be matched."""
    source = source_of(term, teachers)
    names = [teacher.name for teacher in teachers]
    if term.network is not None and term.network not in names:
        return [
            InputError(
                f"no teacher '{term.network}'",
                where=term.where,
                allowed=", ".join(names),
                hint=nearest(term.network, names),
            )
        ]
    if source is None or source.module is None:
        named = term.network or ", ".join(names)
        message = f"'{term.name}' reads layers, but the teacher {named} is a black box"
        hint = "use a loss on logits, such as kl, or a teacher from a factory"
        return [InputError(message, where=term.where, hint=hint)]
    try:
        resolved = paired([term], student, teachers)
    except EdgekdError as fault:
        return [fault]
    faults: list[EdgekdError] = []
    for resolved_term in resolved:
        faults += _bridge_faults(resolved_term, student, source.module, data)
    return faults


def _bridge_faults(
    term: Term, student: nn.Module, teacher: nn.Module, data: Data
) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    for side, network, wanted in (
        ("student", student, term.tapped),
        ("teacher", teacher, term.teacher),
    ):
        known = layer_names(network)
        place = f"{term.where}: {side}"
        faults += [no_such_layer(name, known, place) for name in wanted if name not in known]
    if faults:
        return faults
    try:
        with evaluating(student), evaluating(teacher):
            bridge(term, student, teacher, data.example, data.shown)
    except EdgekdError as fault:
        return [fault]
    return []


def output_faults(
    term: Term, student: nn.Module, teachers: Sequence[Teacher], data: Data
) -> list[EdgekdError]:
    """Faults for outputs that a loss on whole outputs can't read, a missing layer for balancing,
    and a black box if the loss has to run the network."""
    known = layer_names(student)
    place = f"{term.where}: weight"
    missing: list[InputError] = [
        no_such_layer(name, known, place) for name in term.tapped if name not in known
    ]
    if not missing and term.output is None:
        missing = _main_output_faults(term, student, data)
    if missing or (isinstance(term.loss, ResponseLoss) and term.output is None):
        return list(missing)
    needs = () if isinstance(term.loss, ResponseLoss) else term.loss.needs
    if "teacher_network" in needs and teachers and teachers[0].module is None:
        message = f"'{term.name}' runs the teacher, but {teachers[0].name} is a black box"
        hint = "use a teacher from a factory or a program"
        return [InputError(message, where=term.where, hint=hint)]
    try:
        fit_outputs(term, student, data)
        if term.output is not None:
            return _other_output_faults(term, student, teachers, data)
    except EdgekdError as fault:
        return [fault]
    return []


def _main_output_faults(term: Term, student: nn.Module, data: Data) -> list[InputError]:
    """A fault for a loss on one output if the task reads several, or one that has no classes."""
    with evaluating(student), torch.no_grad():
        outputs = data.task.main(student(data.example))
    if isinstance(outputs, Tensor):
        return _one_class_faults(term, outputs, data)
    message = f"'{term.name}' compares one output, and the task reads several"
    names = ", ".join(leaf_names(outputs))
    hint = "say which: output = 'NAME'"
    return [InputError(message, where=term.where, allowed=names, hint=hint)]


def _one_class_faults(term: Term, outputs: Tensor, data: Data) -> list[InputError]:
    """A fault for a loss between classes if there is one alone, whose probability is always 1."""
    found = data.task.rows(outputs)
    if not isinstance(term.loss, ResponseLoss) or found is None or found.shape[1] != 1:
        return []
    mine = torch.tensor([[0.0], [1.0]], requires_grad=True)
    labels = torch.zeros(2, dtype=torch.int64)
    value = term.loss(mine, torch.tensor([[2.0], [-1.0]]), labels, None)
    (slope,) = torch.autograd.grad(value, mine, allow_unused=True)
    if slope is not None and bool(slope.any()):
        return []
    message = f"'{term.name}' compares classes, but the output is one number: it teaches nothing"
    hint = "losses = [{ name = 'regression' }] compares the numbers themselves"
    return [InputError(message, where=term.where, hint=hint)]


def _other_output_faults(
    term: Term, student: nn.Module, teachers: Sequence[Teacher], data: Data
) -> list[EdgekdError]:
    """Faults for outputs named by a loss that a teacher lacks, or has in another shape."""
    with evaluating(student), torch.no_grad():
        mine = leaf(student(data.example), term.output, f"{term.where}: student")
    for teacher in teachers:
        place = f"{term.where}: teacher {teacher.name}"
        try:
            theirs = teacher_logits(teacher, data.shown, term.teacher_output)
        except EdgekdError as error:
            return [InputError(error.message, where=place, allowed=error.allowed)]
        if theirs.shape != mine.shape:
            message = f"the output has shape {_said(theirs)}, but the student's has {_said(mine)}"
            return [InputError(message, where=place)]
    return []


def _shape(value: object) -> tuple[tuple[int, ...], ...]:
    return tuple(tuple(part.shape) for part in leaves(value))


def _said(value: object) -> str:
    return ", ".join(str(shape) for shape in _shape(value))


def _forward_fault(error: Exception, data: Data, place: str) -> EdgekdError:
    first = first_line(error)
    shape = described(data.example)
    return InputError(f"can't run on the data's samples of shape {shape}: {first}", where=place)
