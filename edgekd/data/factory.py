"""A data set from the user's own callable."""

from collections.abc import Mapping, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from edgekd.data.cut_texts import cut_texts
from edgekd.data.dataset import AS_FITS, How, prepared, samples_from
from edgekd.data.inputs import Held
from edgekd.data.loaders import unloaded
from edgekd.data.samples import Samples
from edgekd.data.source import Source, samples_of
from edgekd.data.spool import spooled
from edgekd.data.tasks import Task, task_of
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError, nearest
from edgekd.factories import call

PARTS = ("train", "validation", "test")
FORMS = "a mapping with train, test and optionally validation, or a tuple in that order"


def read_factory(
    reference: str,
    arguments: Mapping[str, Any],
    folder: Path,
    where: str,
    asked: Task | None = None,
    how: How = AS_FITS,
) -> Source:
    """What `package.module:callable` returns: a mapping, NamedTuple or tuple of parts.

    A tuple is (train, test) or (train, validation, test). A part is a map-style torch `Dataset`
    of (input, label) or a pair of arrays (x, y). Datasets are read into memory once, so random
    changes inside them are drawn once. A mapping may also have `classes`, `labels` and `task` (a
    name, a table or a `Task`), and `transform`, a callable that changes a training input at random;
    `asked` is the task that the recipe names, which takes precedence.
    """
    return read_parts(call(reference, arguments, folder, where), reference, where, asked, how)


def read_parts(
    returned: Any, reference: str, where: str, asked: Task | None = None, how: How = AS_FITS
) -> Source:
    """The same for parts that exist already; errors refer to them as `reference`."""
    table = _table(returned, reference, where)
    task = asked or _task(table.get("task"), f"{reference}: task")
    parts = {
        name: _samples(table[name], f"{reference}: {name}", task, _how_of(name, table, how))
        for name in PARTS
        if name in table
    }
    labels = tuple(str(label) for label in table.get("labels") or ())
    return Source(
        parts["train"],
        parts["test"],
        parts.get("validation"),
        table.get("classes"),
        labels,
        table.get("transform"),
        (*table.get("notes", ()), *cut_texts(_raw_parts(table), how.prepare)),
    )


def _raw_parts(table: Mapping[str, Any]) -> dict[str, Any]:
    return {name: table[name] for name in PARTS if name in table}


def _how_of(part: str, table: Mapping[str, Any], how: How) -> How:
    """Training samples that a transform changes are read anew each time, not from prepared ones."""
    drawn = how.draws or table.get("transform") is not None
    keeps = part != "train" or not drawn or how.prepare is None or how.stream is not None
    return how if keeps else replace(how, stream=True)


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
    known = (*PARTS, "classes", "labels", "task", "transform", "notes")
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


def _samples(part: Any, where: str, asked: Task | None, how: How) -> Samples:
    if isinstance(part, Samples):
        if not isinstance(part.inputs, Held):
            return part
        checked = samples_of(part.inputs.tree, part.y, where, asked or part.task)
        return replace(prepared(checked, where, how), paired=part.paired)
    task = asked or CLASSIFICATION
    if isinstance(part, TensorDataset) and len(part.tensors) == 2:
        return prepared(samples_of(*part.tensors, where, task), where, how)
    if isinstance(part, DataLoader):
        dataset, workers = unloaded(part, where)
        return _samples(dataset, where, asked, replace(how, workers=how.workers or workers))
    if isinstance(part, tuple | list) and len(part) == 2:
        return prepared(samples_of(part[0], part[1], where, task), where, how)
    if isinstance(part, IterableDataset):
        if not isinstance(part, Sized):
            hint = "define __len__: that many samples are read once onto the disk"
            raise InputError("the Dataset has no length", where=where, hint=hint)
        on_disk = spooled(part, where, how.prepare)
        return samples_from(on_disk, where, task, replace(how, prepare=None))
    if isinstance(part, Dataset) or _is_map_style(part):
        return samples_from(part, where, task, how)
    raise InputError(
        f"a part is of type {type(part).__name__}",
        where=where,
        allowed="a map-style torch Dataset, a DataLoader, or a pair of arrays (x, y)",
    )


def _is_map_style(part: Any) -> bool:
    """Whether it is a data set that doesn't derive from torch's (Hugging Face's)."""
    known = isinstance(part, tuple | list | str | Mapping | torch.Tensor | np.ndarray)
    return not known and hasattr(part, "__getitem__") and hasattr(part, "__len__")
