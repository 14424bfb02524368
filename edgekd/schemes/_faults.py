"""What several schemes refuse in the same words."""

from edgekd.errors import EdgekdError, InputError
from edgekd.losses import FeatureLoss, OutputLoss
from edgekd.schemes import Situation
from edgekd.terms import terms_of


def answer_faults(at: Situation, scheme: str) -> list[EdgekdError]:
    """Losses that can't be made, that read layers, or none at all."""
    terms, faults = terms_of(at.teaching.losses, at.where)
    faults += weighting_faults(at, scheme)
    for term in terms:
        reads = "layers" if term.reads_features or term.tapped else ""
        if isinstance(term.loss, OutputLoss) or (
            isinstance(term.loss, FeatureLoss) and term.loss.needs
        ):
            reads = "more than class logits"
        if reads:
            message = f"'{term.name}' reads {reads}, and '{scheme}' compares answers alone"
            hint = "use a loss on logits, such as kl"
            faults.append(InputError(message, where=term.where, hint=hint))
    if not faults and not any(term.weight for term in terms):
        hint = 'set losses = [{ name = "kl", temperature = 3.0 }]'
        message = f"no loss: '{scheme}' has nothing to compare answers by"
        faults.append(InputError(message, where=at.where, hint=hint))
    return faults


def weighting_faults(at: Situation, scheme: str, *keys: str) -> list[EdgekdError]:
    """Keys of the teaching that a scheme with a loss of its own doesn't read."""
    faults: list[EdgekdError] = []
    for key in ("sample_weights", "calibrate_teachers", *keys):
        if getattr(at.teaching, key) != type(at.teaching).model_fields[key].default:
            place = f"{at.where}: {key.replace('_schedule', '_weight')}"
            message = f"'{scheme}' has a loss of its own, which doesn't read it"
            faults.append(InputError(message, where=place, hint="leave it out"))
    return faults


def class_faults(at: Situation, scheme: str) -> list[EdgekdError]:
    """A task without one class a sample, which the scheme's formula counts on."""
    if at.data.task.name == "classification":
        return []
    message = f"'{scheme}' needs one class a sample, the task is '{at.data.task.name}'"
    return [InputError(message, where=at.where, hint="use the scheme offline")]


def layer_teacher_faults(at: Situation, scheme: str, why: str) -> list[EdgekdError]:
    """No teacher, or one without layers where gradients have to go through it."""
    if not at.teachers:
        hint = "name one under [[teachers]]"
        return [InputError("there is no teacher", where=at.where, hint=hint)]
    if at.teachers[0].module is None:
        message = f"'{scheme}' {why}, but the teacher {at.teachers[0].name} is a black box"
        hint = "use a teacher from a factory or a program"
        return [InputError(message, where=at.where, hint=hint)]
    return []
