"""From a recipe's data table to samples in memory; every fault is found before training."""

import os
from dataclasses import replace
from pathlib import Path

from edgekd.data.dataset import How
from edgekd.data.factory import read_factory, read_parts
from edgekd.data.npz import read_npz
from edgekd.data.samples import Augmentation, Data, Samples, is_image
from edgekd.data.sets import SETS
from edgekd.data.source import Source, classes_of, source_faults
from edgekd.data.split import held_out
from edgekd.data.tasks import task_of
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import InputError, nearest, raise_all
from edgekd.values.recipe import DataTable
from edgekd.values.tables import build
from edgekd.values.tree import described


def load_data(table: DataTable, folder: Path) -> Data:
    """The samples of a recipe's data table, whose paths are relative to `folder`.

    The source's own validation part is used if it has one; otherwise `table.validation` of the
    training samples are held back, evenly over classes and independent of the seed. Before that,
    `limit` keeps only the first training samples. Raises `InputError` for everything that is wrong.
    """
    source = _read(table, folder)
    where = f"data {table.source}"
    raise_all(source_faults(source, where))
    rows = len(source.train)
    train = source.train
    if table.limit is not None and table.limit < rows:
        train = train.take(train.rows[: table.limit])
    validation = source.validation
    if validation is None:
        keep, hold = held_out(source.task.strata(train.y), table.validation)
        if not len(hold):
            raise InputError(
                f"{len(train)} training samples are too few to hold back validation samples",
                where=where,
                allowed="at least two samples of one class",
            )
        train, validation = train.take(keep), train.take(hold)
    return Data(
        name=Path(table.source).name if table.source.endswith(".npz") else table.source,
        train=train,
        validation=validation,
        test=source.test,
        classes=classes_of(source),
        augmentation=_augmentation(table, train),
        labels=source.labels,
        training_rows=rows,
        held_back=source.validation is None,
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


def _read(table: DataTable, folder: Path) -> Source:
    asked = None if table.task is None else task_of(table.task, "data.task")
    how = How(table.stream, table.memory_gb, table.workers)
    if table.parts is not None:
        return read_parts(table.parts, "the data", "data", asked, how)
    if table.source.endswith(".npz"):
        if table.arguments:
            raise InputError(
                "an .npz file takes no arguments", where="data.arguments", allowed="no key"
            )
        return read_npz(folder / table.source, asked or CLASSIFICATION)
    if ":" in table.source:
        return read_factory(table.source, table.arguments, folder, "data.source", asked, how)
    source = _named(table)
    if asked is not None and type(asked) is not type(source.task):
        raise InputError(
            f"'{table.source}' has targets for {source.task.name}, not for {asked.name}",
            where="data.task",
            allowed=source.task.name,
        )
    if asked is None:
        return source
    parts = {name: replace(part, task=asked) for name, part in source.parts.items()}
    return replace(
        source, train=parts["train"], test=parts["test"], validation=parts.get("validation")
    )


def _named(table: DataTable) -> Source:
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
            or ("a file must be an .npz" if looks_like_file else "see 'edgekd methods' for sets"),
        )
    source: Source = build(SETS.get(table.source), table.arguments, "data.arguments")
    return source
