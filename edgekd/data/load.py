"""From a recipe's data table to samples in memory; every fault is found before training."""

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from edgekd.data.dataset import How, prepared, settled, transformed
from edgekd.data.factory import read_factory, read_parts
from edgekd.data.npz import read_npz
from edgekd.data.prepare import as_seen, preparing
from edgekd.data.reading import Transform
from edgekd.data.samples import Augmentation, Data, Samples, is_image
from edgekd.data.sets import SETS
from edgekd.data.source import Source, classes_of, source_faults
from edgekd.data.split import held_out
from edgekd.data.streamed import Streamed
from edgekd.data.tasks import NO_LABEL, Task, task_of
from edgekd.data.tasks.classification import CLASSIFICATION, Classification
from edgekd.errors import InputError, nearest, raise_all
from edgekd.factories import find_callable, importable
from edgekd.values.recipe import DataTable
from edgekd.values.tables import build
from edgekd.values.tree import described


def load_data(table: DataTable, folder: Path) -> Data:
    """The samples of a recipe's data table, whose paths are relative to `folder`.

    The source's own validation part is used if it has one; otherwise `table.validation` of the
    training samples are held back, evenly over classes and independent of the seed. Before that,
    `limit` keeps only the first training samples. Raises `InputError` for everything that is wrong.
    """
    how = _how(table, folder)
    source = _read(table, folder, how)
    where = f"data {table.source}"
    raise_all(source_faults(source, where))
    rows = len(source.train)
    train = source.train
    if table.limit is not None and table.limit < rows:
        train = train.take(train.rows[: table.limit])
    validation = source.validation
    if validation is None:
        keep, hold = _held_back(train, table.validation)
        if not len(hold):
            raise _nothing_to_hold_back(train, where)
        train, validation = train.take(keep), train.take(hold)
    for name, part in (("validation", validation), ("test", source.test)):
        raise_all(source.task.judging_faults(part.y, f"{where}: {name}"))
    _check_steps(table, source.task)
    validation = settled(validation, how)
    transform = _transform(table, source, folder)
    augmentation = _augmentation(table, train)
    if transform is not None:
        train = transformed(train, transform, f"{where}: train", how)
    return Data(
        name=Path(table.source).name if table.source.endswith(".npz") else table.source,
        train=train,
        validation=validation,
        test=source.test,
        classes=classes_of(source),
        augmentation=augmentation,
        labels=source.labels,
        notes=(*source.notes, *_notes(train, validation, source.test)),
        training_rows=rows,
        held_back=source.validation is None,
        sampler=_sampler(table, source.task),
    )


def _held_back(train: Samples, share: float) -> tuple[Tensor, Tensor]:
    """Positions to train on and to validate with, among those that have a label."""
    strata = train.task.strata(train.y)
    labelled = (strata != NO_LABEL).nonzero().flatten()
    _, held = held_out(strata[labelled], share)
    hold = train.task.with_partners(train.y, labelled[held])
    mask = torch.ones(len(train), dtype=torch.bool)
    mask[hold] = False
    return mask.nonzero().flatten(), hold


def _nothing_to_hold_back(train: Samples, where: str) -> InputError:
    if bool((train.task.strata(train.y) != NO_LABEL).any()):
        return InputError(
            f"{len(train)} training samples are too few to hold back validation samples",
            where=where,
            allowed="at least two samples of one class",
        )
    return InputError(
        "no training sample has a label, so none can be held back for validation",
        where=where,
        allowed="samples of (input, label), or a validation part that has labels",
    )


def _augmentation(table: DataTable, train: Samples) -> Augmentation:
    """The table's augmentation; `InputError` if it would spoil these samples."""
    augmentation = Augmentation(table.flip, table.shift, table.views)
    if augmentation.active and (not train.task.moves or train.paired is not None):
        raise InputError(
            f"'flip' and 'shift' would move images away from their targets ({train.task.name})",
            where="data",
            hint="leave both out, and augment in the data's own factory",
        )
    example = train.first(1).x
    if augmentation.active and not is_image(example):
        raise InputError(
            f"'flip' and 'shift' change images, but samples have shape {described(example)}",
            where="data",
            allowed="samples of shape (channels, height, width)",
        )
    return augmentation


def _notes(train: Samples, validation: Samples, test: Samples) -> Iterator[str]:
    """Which parts are streamed and why, and how many labels are missing."""
    if isinstance(train.task, Classification) and bool((train.y == NO_LABEL).any()):
        count = int((train.y == NO_LABEL).sum())
        yield f"{count:,} of {len(train):,} training samples have no label"
    for name, part in (("train", train), ("validation", validation), ("test", test)):
        if isinstance(part.inputs, Streamed):
            drawn = name == "train" and part.inputs.random
            why = "new random draws in each epoch" if drawn else "read when needed"
            readers = part.inputs.workers
            yield f"{name} is streamed ({why}; up to {readers} worker processes)"


def _check_steps(table: DataTable, task: Task) -> None:
    """`InputError` for steps that would move an image away from its targets."""
    steps = table.preprocess
    if task.name in PLACED and (steps.crop or isinstance(steps.resize, int)):
        raise InputError(
            f"'crop', and 'resize' to one number, would move images away from their targets "
            f"({task.name})",
            where="data.preprocess",
            allowed="resize = [height, width]",
        )


PLACED = ("detection", "boxes", "segmentation", "keypoints")
"""Tasks whose targets lie somewhere in the image."""


def _sampler(table: DataTable, task: Task) -> str | None:
    if table.sampler == "balanced" and not isinstance(task, Classification):
        message = f"samples of {task.name} have no class to balance by"
        raise InputError(message, where="data.sampler")
    return table.sampler


def _transform(table: DataTable, source: Source, folder: Path) -> Transform | None:
    if table.transform is None:
        return source.transform
    return find_callable(table.transform, folder, "data.transform")


def _how(table: DataTable, folder: Path) -> How:
    steps = table.preprocess
    prepare = preparing(steps, folder)
    return How(
        table.stream,
        table.memory_gb,
        table.workers,
        prepare,
        as_seen(steps),
        table.transform is not None,
    )


def _read(table: DataTable, folder: Path, how: How) -> Source:
    with importable(folder):
        asked = None if table.task is None else task_of(table.task, "data.task")
    if table.parts is not None:
        return read_parts(table.parts, "the data", "data", asked, how)
    if table.source.endswith(".npz"):
        if table.arguments:
            raise InputError(
                "an .npz file takes no arguments", where="data.arguments", allowed="no key"
            )
        return _prepared(read_npz(folder / table.source, asked or CLASSIFICATION), how)
    if ":" in table.source:
        return read_factory(table.source, table.arguments, folder, "data.source", asked, how)
    made = _named(table, folder)
    if not isinstance(made, Source):
        return read_parts(made, table.source, "data", asked, how)
    source = _prepared(made, how)
    own = asked is not None and source.task.name in asked.reads_targets_of
    if asked is not None and type(asked) is not type(source.task) and not own:
        raise InputError(
            f"'{table.source}' has targets for {source.task.name}, not for {asked.name}",
            where="data.task",
            allowed=source.task.name,
        )
    if asked is None:
        return source
    return _with_parts(source, lambda _, part: replace(part, task=asked))


def _prepared(source: Source, how: How) -> Source:
    return _with_parts(source, lambda name, part: prepared(part, f"data: {name}", how))


def _with_parts(source: Source, change: Callable[[str, Samples], Samples]) -> Source:
    parts = {name: change(name, part) for name, part in source.parts.items()}
    return replace(
        source, train=parts["train"], test=parts["test"], validation=parts.get("validation")
    )


def _named(table: DataTable, folder: Path) -> Any:
    """What a named set or a reader gives: a `Source`, or parts as a factory returns them."""
    names = SETS.names()
    if table.source == "given":
        raise InputError(
            "the data was an object in Python, which a recipe can't hold",
            where="data.source",
            allowed=f"{', '.join(names)}, an .npz file or package.module:callable",
            hint="call edgekd.compress() with the data sets again, or name a factory",
        )
    if table.source not in names:
        looks_like_file = os.sep in table.source or "." in table.source
        raise InputError(
            f"unknown data set '{table.source}'",
            where="data.source",
            allowed=f"{', '.join(names)}, an .npz file or package.module:callable",
            hint=nearest(table.source, names)
            or (
                "a file must be an .npz"
                if looks_like_file
                else "own data is an .npz file or a factory"
            ),
        )
    entry, arguments = SETS.get(table.source), table.arguments
    if "path" in entry.parameters:
        if table.path is None:
            message = f"'{table.source}' reads a folder or file, but none is named"
            raise InputError(message, where="data.path", hint='path = "photos"')
        arguments = {"path": folder / table.path, **arguments}
    elif table.path is not None:
        raise InputError(f"'{table.source}' takes no path", where="data.path")
    return build(entry, arguments, "data.arguments")
