"""What a source of samples returns, before validation is held back, and the checks on it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from edgekd.data.inputs import CHUNK
from edgekd.data.samples import Samples
from edgekd.data.structure import tensor_of, tree_of
from edgekd.data.target_trees import TargetForm, is_tree, packed
from edgekd.data.tasks import NO_LABEL, Task
from edgekd.data.tasks.classification import CLASSIFICATION, Classification
from edgekd.errors import EdgekdError, InputError
from edgekd.values.tree import described, mapped, named_leaves, same_form


@dataclass(frozen=True, eq=False)
class Source:
    """Samples as their source has them; `validation` if the source has its own.

    `classes` is how many there are, if the source knows; otherwise the labels decide. `transform`
    changes a training sample's inputs at random; `notes` say what the plan should show.
    """

    train: Samples
    test: Samples
    validation: Samples | None = None
    classes: int | None = None
    labels: tuple[str, ...] = ()
    transform: Callable[[Any], Any] | None = None
    notes: tuple[str, ...] = ()

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
    """Arrays or tensors as `Samples`: x (N, ...) of numbers, or a dict or tuple of such, y (N,) of
    integers, or what the task's targets are.

    Bytes are images from 0 to 255 (rank 3 and up), which networks get scaled to [0, 1]; integers
    stay integers, in int64, and truth values stay what they are; other numbers become float32. NaN,
    infinity, labels that aren't integers, wrong ranks and counts that differ raise InputError.
    """
    inputs = tree_of(x, f"{where}: x")
    if is_tree(y):
        whole = tree_of(y, f"{where}: y")
        first = mapped(lambda leaf: leaf[0] if len(leaf) else leaf, whole)
        task, y = task.with_form(TargetForm.of(first), where), packed(whole, where, rows=True)
    targets = targets_of(tensor_of(y, f"{where}: y"), task, where)
    for name, leaf in named_leaves(inputs, "x").items():
        lone = leaf is inputs
        if leaf.ndim < (2 if lone else 1):
            raise InputError(
                f"{name} has shape {tuple(leaf.shape)}", where=where, allowed="(N, ...)"
            )
        if len(leaf) != len(targets):
            raise InputError(
                f"{len(leaf)} inputs{'' if lone else f' in {name}'}, but {len(targets)} labels",
                where=where,
            )
        if not leaf.numel():
            raise InputError(f"no samples: {name} has shape {tuple(leaf.shape)}", where=where)
        check_finite(leaf, where if lone else f"{where}: {name}")
    return Samples(inputs, targets, task=task)


def _shape_fault(name: str, leaf: Tensor, where: str) -> InputError:
    return InputError(f"{name} has shape {tuple(leaf.shape)}", where=where, allowed="(N, ...)")


def targets_of(y: Tensor, task: Task, where: str) -> Tensor:
    """Targets (N, ...) in the type that the task reads; one real number a sample is (N, 1).
    `InputError` for another rank or kind."""
    if isinstance(task, Classification):
        if y.ndim != 1:
            hint = "for one-hot labels, store y.argmax(1)" if y.ndim == 2 else ""
            shape = tuple(y.shape)
            raise InputError(f"y has shape {shape}", where=where, allowed="(N,)", hint=hint)
        if _not_integer(y):
            allowed = "integers starting at 0"
            raise InputError(f"labels are {_not_integer(y)}", where=where, allowed=allowed)
    if task.keeps_targets:
        check_finite(y, f"{where}: y")
        return y.float() if y.is_floating_point() else y.long()
    if not task.integer:
        check_finite(y, f"{where}: y")
        return (y.unsqueeze(1) if y.ndim == 1 else y).float()
    if _not_integer(y):
        raise InputError(f"targets are {_not_integer(y)}", where=where, allowed="integers")
    return y.long()


def _not_integer(y: Tensor) -> str:
    """What kind of values the targets are, if not integers."""
    if y.is_floating_point():
        return "floating-point numbers"
    return "truth values" if y.dtype == torch.bool else ""


def check_finite(values: Tensor, where: str) -> None:
    """`InputError` with the first sample of (N, ...) that has NaN or infinity in it."""
    if not values.is_floating_point():
        return
    parts = [part.isfinite().flatten(1).all(1) for part in torch.split(values.unsqueeze(-1), CHUNK)]
    bad = ~torch.cat(parts)
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
    example = source.train.first(1).x
    for name, part in source.parts.items():
        found = part.first(1).x
        if not same_form(found, example):
            faults.append(
                InputError(
                    f"samples of shape {described(found)}",
                    where=f"{where}: {name}",
                    allowed=f"{described(example)}, as in train",
                )
            )
    for name, part in source.parts.items():
        if part.task != source.task:
            tasks = f"{part.task.name}, but those of train are for {source.task.name}"
            message = f"the targets are for {tasks}"
            faults.append(InputError(message, where=f"{where}: {name}"))
    faults += source.task.input_faults(example, where)
    if isinstance(source.task, Classification):
        return faults + _label_faults(source, where)
    for name, part in source.parts.items():
        faults += source.task.target_faults(part.y, classes_of(source), f"{where}: {name}")
    return faults


def _label_faults(source: Source, where: str) -> list[EdgekdError]:
    faults: list[EdgekdError] = []
    present = torch.unique(source.train.y[source.train.y != NO_LABEL])
    classes = classes_of(source)
    for name, part in source.parts.items():
        least = NO_LABEL if name == "train" else 0
        wrong = (part.y < least) | (part.y >= classes)
        if wrong.any():
            first = int(wrong.nonzero()[0])
            faults.append(
                InputError(
                    f"label {int(part.y[first])} of sample {first} is out of range",
                    where=f"{where}: {name}",
                    allowed=f"0 to {classes - 1}",
                )
            )
    if source.classes is None and not faults and len(present) not in (0, classes):
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
    """The number of classes: the source's, or the largest training label plus one, or, if no
    training sample has a label, the largest test label plus one."""
    if source.labels:
        return len(source.labels)
    task = source.task
    return source.classes or task.classes_in(source.train.y) or task.classes_in(source.test.y)
