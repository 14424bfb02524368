"""Checks that several schemes share."""

import os

from edgekd.errors import EdgekdError, InputError
from edgekd.training.context import Context
from edgekd.training.losses import DepthsLoss, FeatureLoss, OutputLoss
from edgekd.training.terms import Term, terms_of


def answer_faults(context: Context, scheme: str) -> list[EdgekdError]:
    """Faults for losses that can't be built or that read layers, or for a missing loss."""
    terms, faults = terms_of(context.losses, context.where)
    faults += weighting_faults(context, scheme)
    faults += [fault for term in terms for fault in _beyond_answers(term, scheme)]
    if not faults and not any(term.weight for term in terms):
        hint = 'set losses = [{ name = "kl", temperature = 3.0 }]'
        message = f"there is no loss: '{scheme}' has nothing to compare outputs with"
        faults.append(InputError(message, where=context.where, hint=hint))
    return faults


def layer_faults(context: Context, scheme: str) -> list[EdgekdError]:
    """Faults for losses that read more than logits when the teacher's layers are not available."""
    terms, _ = terms_of(context.losses, context.where)
    return [fault for term in terms for fault in _beyond_answers(term, scheme)]


def _beyond_answers(term: Term, scheme: str) -> list[EdgekdError]:
    reads = "layers" if term.reads_features or term.tapped else ""
    if isinstance(term.loss, OutputLoss | DepthsLoss) or (
        isinstance(term.loss, FeatureLoss) and term.loss.needs
    ):
        reads = "more than class logits"
    if not reads:
        return []
    message = f"'{term.name}' reads {reads}, but '{scheme}' compares only outputs"
    return [InputError(message, where=term.where, hint="use a loss on logits, such as kl")]


def one_process_faults(context: Context, scheme: str) -> list[EdgekdError]:
    """A fault for several processes, if a scheme has state that only one of them would have."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return []
    message = f"'{scheme}' trains in a single process, but several are running"
    return [InputError(message, where=context.where, hint="run it without torchrun")]


def weighting_faults(context: Context, scheme: str, *keys: str) -> list[EdgekdError]:
    """Faults for keys of the teaching that a scheme with its own loss ignores."""
    faults: list[EdgekdError] = []
    for key in ("sample_weights", "calibrate_teachers", *keys):
        if getattr(context.teaching, key) != type(context.teaching).model_fields[key].default:
            place = f"{context.where}: {key.replace('_schedule', '_weight')}"
            message = f"'{scheme}' has its own loss, which ignores this key"
            faults.append(InputError(message, where=place, hint="leave it out"))
    return faults


def class_faults(context: Context, scheme: str) -> list[EdgekdError]:
    """A fault for a task without one class per sample, which the scheme's formula requires."""
    if context.data.task.name == "classification":
        return []
    message = f"'{scheme}' needs one class per sample, but the task is '{context.data.task.name}'"
    return [InputError(message, where=context.where, hint='use scheme = "offline"')]


def layer_teacher_faults(context: Context, scheme: str, why: str) -> list[EdgekdError]:
    """A fault for a missing teacher, or for a black box if gradients have to pass through it."""
    if not context.teachers:
        hint = "add one under [[teachers]]"
        return [InputError("there is no teacher", where=context.where, hint=hint)]
    if context.teachers[0].module is None:
        message = f"'{scheme}' {why}, but the teacher {context.teachers[0].name} is a black box"
        hint = "use a teacher from a factory or a program"
        return [InputError(message, where=context.where, hint=hint)]
    return []
