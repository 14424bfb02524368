"""The tasks of continual learning: groups of classes that arrive one after the other."""

import torch
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import predict
from edgekd.stages.distill.schemes._faults import class_faults
from edgekd.stages.distill.schemes._stand_in import only
from edgekd.training.context import Context

Tasks = tuple[tuple[int, ...], ...]


def task_order_faults(tasks: Tasks, known: int, context: Context, scheme: str) -> list[EdgekdError]:
    """Faults for too few tasks, unknown or repeated classes, and tasks without samples."""
    place, classes = f"{context.where}: scheme.tasks", context.data.classes
    faults = class_faults(context, scheme)
    if faults:
        return faults
    if len(tasks) < 2:
        hint = "tasks = [[0, 1, 2], [3, 4, 5]]"
        message = f"'{scheme}' needs at least two tasks, found {len(tasks)}"
        return [InputError(message, where=place, allowed="at least two groups", hint=hint)]
    if known >= len(tasks):
        message = f"all {len(tasks)} tasks are already known"
        faults.append(InputError(message, where=f"{context.where}: scheme.known"))
    seen: set[int] = set()
    for number, task in enumerate(tasks, 1):
        where = f"{place}.{number}"
        for label in task:
            if not 0 <= label < classes:
                message, allowed = f"there is no class {label}", f"0 to {classes - 1}"
                faults.append(InputError(message, where=where, allowed=allowed))
            elif label in seen:
                faults.append(InputError(f"class {label} appears twice", where=where))
            seen.add(label)
        if not len(of_classes(context.data.train, task)):
            faults.append(InputError("no training sample belongs to its classes", where=where))
    return faults


def of_classes(samples: Samples, classes: tuple[int, ...]) -> Samples:
    """The samples whose label is one of these."""
    wanted = torch.isin(samples.y, torch.tensor(classes, dtype=torch.int64))
    return samples.take(wanted.nonzero().flatten())


def of_task(data: Data, classes: tuple[int, ...]) -> Data:
    """The data of one task: only its own classes, for training and validation."""
    return only(data, of_classes(data.train, classes), of_classes(data.validation, classes))


def among(logits: Tensor, classes: tuple[int, ...]) -> Tensor:
    """Logits (B, C) with all other classes far below, so that softmax gives them exactly zero."""
    mask = torch.full((logits.shape[1],), -1e4, device=logits.device)
    mask[list(classes)] = 0.0
    return logits + mask


def accuracy_by_task(student: nn.Module, data: Data, tasks: Tasks) -> str:
    """Each task's accuracy on the validation samples, among all classes, for the report."""
    shares = []
    for task in tasks:
        samples = of_classes(data.validation, task)
        if not len(samples):
            shares.append("unknown")
            continue
        predicted = predict(student, samples).argmax(1)
        shares.append(f"{float((predicted == samples.y).double().mean()):.3f}")
    return f"validation accuracy by task: {', '.join(shares)}"
