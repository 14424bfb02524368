"""Trains a student from one or more teachers, and checks the setup before."""

from collections.abc import Sequence
from contextlib import ExitStack

import torch
from torch import nn

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError, raise_all
from edgekd.training.context import Context
from edgekd.training.distillation_loss import DistillationLoss
from edgekd.training.faults import (
    data_faults,
    feature_faults,
    logit_faults,
    output_faults,
    row_faults,
    task_faults,
    weight_faults,
)
from edgekd.training.fusion import Fusion
from edgekd.training.logits import TeacherLogits
from edgekd.training.loop import fit
from edgekd.training.optimizer import make_fabric
from edgekd.training.sharding import Sharding
from edgekd.training.teachers import Teacher
from edgekd.training.terms import Term, paired, spread, terms_of


def check_teaching(student: nn.Module, context: Context) -> list[EdgekdError]:
    """The reasons why the context's teaching can't work for this student, found with one forward
    pass and no training."""
    teaching, data, where = context.teaching, context.data, context.where
    teachers = context.teachers
    terms, faults = terms_of(context.losses, where)
    if not faults and not teaching.label_weight and not any(term.weight for term in terms):
        faults.append(InputError("every weight is zero: there is nothing to learn", where=where))
    if context.losses and not teachers:
        hint = "add one under [[teachers]], or set losses = [] to train with labels only"
        faults.append(InputError("there is no teacher", where=where, hint=hint))
    faults += task_faults(terms, teaching.label_smoothing, data, where)
    if not (teachers and terms) and data.unlabelled == len(data.train) > 0:
        message = "no training sample has a label, and there is no teacher to learn from"
        faults.append(InputError(message, where=where, hint="add losses and a teacher"))
    faults += row_faults(teaching, data, bool(teachers and terms), where)
    broken = data_faults(data, where) + weight_faults(student, teachers, where)
    broken = broken or logit_faults(student, teachers if terms else (), data, where)
    if broken:
        return faults + broken
    for term in spread(terms, student, data.example):
        if term.reads_features and teachers:
            faults += feature_faults(term, student, teachers, data)
        elif not term.reads_features:
            faults += output_faults(term, student, teachers, data)
    return faults


def teach(
    student: nn.Module,
    context: Context,
    *,
    fusion: Fusion | None = None,
    companions: nn.Module | None = None,
    storage: torch.dtype = torch.float32,
    sharding: Sharding | None = None,
) -> nn.Module:
    """Train `student` in place by the context's teaching; return it in eval mode on the CPU.

    Teachers are not changed, and all hooks are removed. `fusion` turns several
    teachers' logits into one (by their weights if not given), `companions` are trained along, and
    `storage` is the precision in which the teachers' logits are kept. `sharding` divides what the
    teaching says over the processes. Raises what `check_teaching` finds.
    """
    raise_all(check_teaching(student, context))
    terms = _terms(student, context)
    teacher_logits = TeacherLogits(context if terms else context.with_teachers(()), storage)
    loss = DistillationLoss(context, terms, teacher_logits, fusion)
    if context.teaching.calibrate_teachers:
        loss.calibrate()
    with seeded(context.seed, "losses"):
        loss.prepare(student)
    learned = nn.ModuleList([term.learned for term in terms])
    learned.extend([part for part in (fusion, companions) if part is not None])
    identity = identity_of(context.teachers)
    with ExitStack() as stack:
        if sharding is not None and context.teaching.shard != "student":
            device = make_fabric(context.teaching.precision).device  # starts the processes' group
            for teacher in context.teachers if terms else ():
                if teacher.module is not None:
                    teacher.module.to(device)
                    example = context.data.shown
                    stack.enter_context(sharding.divided(teacher.name, teacher.module, example))
        stack.enter_context(loss.tapping(student))
        mine = None if context.teaching.shard == "teachers" else sharding
        return fit(
            student, loss.loss, context, companions=learned, identity=identity, sharding=mine
        )


def identity_of(teachers: Sequence[Teacher]) -> str:
    """The part of a checkpoint's identity that comes from the teachers: their networks and
    weights."""
    return " ".join(f"{teacher.key}*{teacher.weight}" for teacher in teachers)


def _terms(student: nn.Module, context: Context) -> list[Term]:
    """The losses with a non-zero weight, each with its layers."""
    terms = terms_of(context.losses, context.where)[0]
    terms = spread([term for term in terms if term.weight], student, context.data.example)
    return paired(terms, student, context.teachers)
