"""What a source of samples returns, before validation is held back, and the checks on it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgekd.data.samples import Samples
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION, Classification
from edgekd.errors import EdgekdError, InputError


@dataclass(frozen=True, eq=False)
class Source:
    """Samples as their source has them; `validation` if the source has its own.

    `classes` is how many there are, if the source knows; otherwise the labels decide.
    """

    train: Samples
    test: Samples
    validation: Samples | None = None
    classes: int | None = None
    labels: tuple[str, ...] = ()

    @property
    def task(self) -> Task:
        """What the targets are."""
        return self.train.task

    @property
    def parts(self) -> dict[str, Samples]:
        """The existing parts, by name."""
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: part for name, part in parts.items() if part is not None}


def samples_of(x: Any, y: Any, where: str, task: Task = CLASSIFICATION) -> Samples:
    """Arrays or tensors as `Samples`: x (N, ...) of numbers, y (N,) of integers, or what the task's
    targets are.

    uint8 images (rank 3 and up) are scaled to [0, 1]; every other type keeps its values. NaN,
    infinity, labels that aren't integers, wrong ranks and counts that differ raise InputError.
    """
    inputs, labels = _array(x, f"{where}: x"), _array(y, f"{where}: y")
    if inputs.ndim < 2:
        raise InputError(f"x has shape {inputs.shape}", where=where, allowed="(N, ...)")
    plain = isinstance(task, Classification)
    if plain and labels.ndim != 1:
        hint = "for one-hot labels, store y.argmax(1)" if labels.ndim == 2 else ""
        raise InputError(f"y has shape {labels.shape}", where=where, allowed="(N,)", hint=hint)
    if plain and labels.dtype.kind not in "iu":
        raise InputError(
            f"labels are {labels.dtype}", where=where, allowed="integers starting at 0"
        )
    if len(inputs) != len(labels):
        raise InputError(f"{len(inputs)} inputs, but {len(labels)} labels", where=where)
    if not len(inputs) or not inputs.size:
        raise InputError(f"no samples: x has shape {inputs.shape}", where=where)
    if inputs.dtype.kind not in "fiub":
        raise InputError(f"x holds {inputs.dtype}", where=where, allowed="numbers")
    scale = inputs.dtype == np.uint8 and inputs.ndim >= 3
    with np.errstate(over="ignore"):
        values = torch.from_numpy(np.ascontiguousarray(inputs, np.float32))
    if scale:
        values = values / 255
    _check_finite(values, where)
    if task.integer:
        return Samples(values, _integers(labels, where), task=task)
    if labels.dtype.kind not in "fiub":
        raise InputError(f"y holds {labels.dtype}", where=where, allowed="numbers")
    targets = torch.from_numpy(np.ascontiguousarray(labels, np.float32))
    _check_finite(targets, f"{where}: y")
    return Samples(values, targets, task=task)


def _integers(labels: NDArray[Any], where: str) -> torch.Tensor:
    if labels.dtype.kind not in "iu":
        raise InputError(f"targets are {labels.dtype}", where=where, allowed="integers")
    return torch.from_numpy(np.ascontiguousarray(labels, np.int64))


def _array(value: Any, where: str) -> NDArray[Any]:
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"not an array: {error}", where=where) from None
    if array.dtype.kind == "O":
        raise InputError("not an array of numbers", where=where)
    return array


def _check_finite(values: torch.Tensor, where: str) -> None:
    bad = ~torch.isfinite(values).reshape(len(values), -1).all(1)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise InputError(
            f"NaN or infinity in {int(bad.sum())} of {len(bad)} inputs, first in sample {first}",
            where=where,
            allowed="finite numbers",
        )


def source_faults(source: Source, where: str) -> list[EdgekdError]:
    """Everything that is wrong between the parts: shapes that differ, labels out of range."""
    faults: list[EdgekdError] = []
    if source.labels and source.classes not in (None, len(source.labels)):
        faults.append(
            InputError(f"{source.classes} classes, but {len(source.labels)} labels", where=where)
        )
    shape = source.train.x.shape[1:]
    for name, part in source.parts.items():
        if part.x.shape[1:] != shape:
            faults.append(
                InputError(
                    f"samples of shape {tuple(part.x.shape[1:])}",
                    where=f"{where}: {name}",
                    allowed=f"{tuple(shape)}, as in train",
                )
            )
    for name, part in source.parts.items():
        if part.task != source.task:
            tasks = f"{part.task.name}, but those of train are for {source.task.name}"
            message = f"the targets are for {tasks}"
            faults.append(InputError(message, where=f"{where}: {name}"))
    if isinstance(source.task, Classification):
        return faults + _label_faults(source, where)
    for name, part in source.parts.items():
        faults += source.task.target_faults(part.y, classes_of(source), f"{where}: {name}")
    return faults


def _label_faults(source: Source, where: str) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    present = torch.unique(source.train.y)
    classes = classes_of(source)
    for name, part in source.parts.items():
        wrong = (part.y < 0) | (part.y >= classes)
        if wrong.any():
            first = int(wrong.nonzero()[0])
            faults.append(
                InputError(
                    f"label {int(part.y[first])} of sample {first} is out of range",
                    where=f"{where}: {name}",
                    allowed=f"0 to {classes - 1}",
                )
            )
    if source.classes is None and not faults and len(present) != classes:
        faults.append(_gap(present.tolist(), classes, where))
    if not faults and classes < 2:
        faults.append(InputError("every label is 0", where=where, allowed="at least two classes"))
    return faults


def _gap(present: Sequence[int], classes: int, where: str) -> InputError:
    absent = next(label for label in range(classes) if label not in set(present))
    return InputError(
        f"labels go up to {classes - 1}, out of range for {len(present)} classes: no training "
        f"sample has label {absent}",
        where=f"{where}: train",
        allowed="labels from 0 without gaps",
        hint="set 'classes' in the source to the number of classes",
    )


def classes_of(source: Source) -> int:
    """The number of classes: the source's, or the largest training label plus one."""
    if source.labels:
        return len(source.labels)
    return source.classes or source.task.classes_in(source.train.y)
