"""A data set from the user's own callable."""

from collections.abc import Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from edgekd.data.samples import Samples
from edgekd.data.source import Source, samples_of
from edgekd.data.structure import batch_of, split_sample
from edgekd.data.tasks import Task, task_of
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError, nearest
from edgekd.factories import call
from edgekd.values.tree import Tree, described, leaves, mapped, same_form

PARTS = ("train", "validation", "test")
FORMS = "a mapping with train, test and optionally validation, or a tuple in that order"


def read_factory(
    reference: str,
    arguments: Mapping[str, Any],
    folder: Path,
    where: str,
    asked: Task | None = None,
) -> Source:
    """What `package.module:callable` returns: a mapping, NamedTuple or tuple of parts.

    A tuple is (train, test) or (train, validation, test). A part is a map-style torch `Dataset`
    of (input, label) or a pair of arrays (x, y). Datasets are read into memory once, so random
    changes inside them are drawn once. A mapping may also have `classes`, `labels` and `task` (a
    name, a table or a `Task`); `asked` is the task that the recipe names, which takes precedence.
    """
    return read_parts(call(reference, arguments, folder, where), reference, where, asked)


def read_parts(returned: Any, reference: str, where: str, asked: Task | None = None) -> Source:
    """The same for parts that exist already; errors refer to them as `reference`."""
    table = _table(returned, reference, where)
    task = asked or _task(table.get("task"), f"{reference}: task")
    parts = {
        name: _samples(table[name], f"{reference}: {name}", task) for name in PARTS if name in table
    }
    labels = tuple(str(label) for label in table.get("labels") or ())
    return Source(
        parts["train"], parts["test"], parts.get("validation"), table.get("classes"), labels
    )


def _task(given: Any, where: str) -> Task | None:
    return given if given is None or isinstance(given, Task) else task_of(given, where)


def _table(returned: Any, reference: str, where: str) -> dict[str, Any]:
    if isinstance(returned, Mapping):
        table = dict(returned)
    elif isinstance(returned, tuple) and len(returned) in (2, 3):
        fields = getattr(returned, "_fields", None)
        order = fields or (PARTS if len(returned) == 3 else ("train", "test"))
        table = dict(zip(order, returned, strict=True))
    else:
        raise InputError(
            f"'{reference}' returned {type(returned).__name__}", where=where, allowed=FORMS
        )
    known = (*PARTS, "classes", "labels", "task")
    for name in table:
        if name not in known:
            raise InputError(
                f"'{reference}' returned an unknown part '{name}'",
                where=where,
                allowed=", ".join(known),
                hint=nearest(str(name), known),
            )
    table = {name: value for name, value in table.items() if value is not None}
    for name in ("train", "test"):
        if name not in table:
            raise InputError(f"'{reference}' returned no '{name}'", where=where, allowed=FORMS)
    if not isinstance(table.get("classes", 2), int):
        raise InputError(f"'{reference}': 'classes' is not an integer", where=where)
    return table


def _samples(part: Any, where: str, asked: Task | None) -> Samples:
    if isinstance(part, Samples):
        checked = samples_of(part.x, part.y, where, asked or part.task)
        return replace(checked, paired=part.paired)
    task = asked or CLASSIFICATION
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return samples_of(*part.tensors, where, task)
    if isinstance(part, Dataset):
        return _gathered(part, where, task)
    if isinstance(part, tuple | list) and len(part) == 2:
        return samples_of(part[0], part[1], where, task)
    raise InputError(
        f"a part is of type {type(part).__name__}",
        where=where,
        allowed="a map-style torch Dataset of (input, label), or a pair of arrays (x, y)",
    )


def _gathered(dataset: Dataset[Any], where: str, task: Task) -> Samples:
    """All samples in memory, written one by one into tensors of the final size."""
    if not isinstance(dataset, Sized):
        raise InputError("the Dataset has no length", where=where, allowed="a map-style Dataset")
    if not len(dataset):
        raise InputError("no samples", where=where)
    x, y = read_sample(dataset, 0, where)
    stored = mapped(lambda leaf: leaf.new_empty((len(dataset), *leaf.shape)), x)
    targets = [y]
    for index in range(len(dataset)):
        if index:
            x, y = read_sample(dataset, index, where, like=x)
            targets.append(y)
        for place, leaf in zip(leaves(stored), leaves(x), strict=True):
            place[index].copy_(leaf)
    return samples_of(stored, stacked(targets, where), where, task)


def read_sample(
    dataset: Dataset[Any], index: int, where: str, like: Tree | None = None
) -> tuple[Tree, Tensor]:
    """Input and target of one sample; `InputError` with its index if it isn't a sample, or has
    another form than `like`."""
    try:
        x, y = split_sample(dataset[index], f"{where}: sample {index}")
    except InputError:
        raise
    except Exception as error:
        raise InputError(
            f"sample {index} can't be read: {type(error).__name__}: {error}", where=where
        ) from error
    if like is not None and not same_form(batch_of(x), batch_of(like)):
        raise InputError(
            f"sample {index} has shape {described(batch_of(x))}",
            where=where,
            allowed=f"{described(batch_of(like))}, as sample 0 has",
        )
    return x, y


def stacked(targets: list[Tensor], where: str) -> Tensor:
    """(N, ...) of all targets: whole and real numbers together are real numbers."""
    if len({target.shape for target in targets}) > 1:
        hint = "pad targets of differing sizes to one shape"
        raise InputError("targets differ in shape", where=where, hint=hint)
    if len({target.dtype for target in targets}) > 1:
        targets = [target.float() for target in targets]
    return torch.stack(targets)
