"""A table of rows: CSV, TSV, JSON lines or Parquet."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field

from edgekd.data.sets import SETS
from edgekd.data.split import held_out
from edgekd.data.tables import Columns, chosen_columns, read_table
from edgekd.data.tasks import NO_LABEL
from edgekd.errors import InputError

PARTS = ("train", "validation", "test")
SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet")


@SETS.register(paper="")
def table(
    path: Path,
    label: str | list[str] = "label",
    inputs: list[str] | dict[str, str | list[str]] | None = None,
    test: float = Field(default=0.2, gt=0, lt=1),
) -> Any:
    """Rows of one file, `test` of which are held back, or of PATH/train.csv and PATH/test.csv.

    Each column in `inputs` is an input of its name, in the column's type; as a table, NAME = "p*"
    makes one input of all columns that match. All columns but the label by default. Texts need
    `tokenizer` under [data.preprocess]. A label is a class (a number or a text), or real numbers
    for a regression; an empty one is missing.
    """
    wanted = [label] if isinstance(label, str) else label
    tables = {
        part: _whole_labels(columns, wanted)
        for part, columns in _tables(path, wanted, inputs, test).items()
    }
    names = _class_names(tables["train"], wanted)
    parts = {
        part: _samples(columns, inputs, wanted, names, f"{path}: {part}")
        for part, columns in tables.items()
    }
    return {**parts, "labels": names or None}


def _tables(path: Path, label: Sequence[str], inputs: Any, share: float) -> dict[str, Columns]:
    if path.is_dir():
        files = {
            part: next(
                (file for end in SUFFIXES if (file := path / f"{part}{end}").is_file()), None
            )
            for part in PARTS
        }
        for part in ("train", "test"):
            if files[part] is None:
                allowed = ", ".join(f"{part}{end}" for end in SUFFIXES)
                raise InputError(f"no table '{part}'", where=str(path), allowed=allowed)
        return {part: _read(file, label, inputs) for part, file in files.items() if file}
    whole = _whole_labels(_read(path, label, inputs), label)
    keep, hold = _held_back(whole, label, share)
    return {
        "train": {name: values[keep] for name, values in whole.items()},
        "test": {name: values[hold] for name, values in whole.items()},
    }


def _read(file: Path, label: Sequence[str], inputs: Any) -> Columns:
    """The columns of a file, every input of which has a number in every row."""
    columns = read_table(file)
    if isinstance(inputs, Mapping):
        patterns = [
            each
            for value in inputs.values()
            for each in ([value] if isinstance(value, str) else value)
        ]
    else:
        patterns = inputs
    for name, values in columns.items():
        used = patterns is None or any(fnmatchcase(name, pattern) for pattern in patterns)
        if name in label or not used or values.dtype.kind != "f" or np.isfinite(values).all():
            continue
        row = int((~np.isfinite(values)).argmax()) + 1
        raise InputError(
            f"column '{name}' has no finite number in row {row}",
            where=str(file),
            hint="rows count from 1 after the header; fill the gap in, or leave the row out",
        )
    return columns


def _held_back(whole: Columns, label: Sequence[str], share: float) -> tuple[Any, Any]:
    """The rows to train on and those to test with, which all have a label."""
    values = whole.get(label[0]) if len(label) == 1 else None
    if values is None or values.dtype.kind == "f":
        keep, hold = held_out(
            torch.zeros(len(next(iter(whole.values()))), dtype=torch.int64), share
        )
        return keep.numpy(), hold.numpy()
    missing = np.array([value is None or value == NO_LABEL for value in values])
    _, strata = np.unique(values[~missing].astype(str), return_inverse=True)
    keep, hold = (
        np.flatnonzero(~missing)[each.numpy()] for each in held_out(torch.from_numpy(strata), share)
    )
    return np.sort(np.concatenate([keep, np.flatnonzero(missing)])), hold


def _whole_labels(columns: Columns, label: Sequence[str]) -> Columns:
    """A label that is empty in some rows and a whole number in the others is a class."""
    values = columns.get(label[0]) if len(label) == 1 else None
    if values is None or values.dtype.kind != "f" or not np.isnan(values).any():
        return columns
    known = values[~np.isnan(values)]
    if not (known == known.round()).all():
        return columns
    classes = np.where(np.isnan(values), NO_LABEL, values).astype(np.int64)
    return {**columns, label[0]: classes}


def _class_names(train: Columns, label: Sequence[str]) -> tuple[str, ...]:
    """The classes if labels are texts, in order."""
    if len(label) != 1 or label[0] not in train or train[label[0]].dtype != object:
        return ()
    return tuple(sorted({str(value) for value in train[label[0]] if value is not None}))


def _samples(
    columns: Columns,
    inputs: list[str] | dict[str, str | list[str]] | None,
    label: Sequence[str],
    names: Sequence[str],
    where: str,
) -> Any:
    y = _targets(columns, label, names, where)
    rest = {name: values for name, values in columns.items() if name not in label}
    x = _inputs(rest, list(rest) if inputs is None else inputs, where)
    texts = [name for name, values in x.items() if values.dtype == object]
    lone = next(iter(x.values())) if len(x) == 1 else None
    if lone is not None and (texts or lone.ndim > 1):
        return Texts(lone, y) if texts else (lone, y)
    if texts:
        raise InputError(
            f"column '{texts[0]}' is text",
            where=where,
            allowed="numbers, or one text for a tokenizer",
            hint=f"arguments.inputs = ['{texts[0]}'], or name the other columns",
        )
    return x, y


def _inputs(
    columns: Columns, inputs: Sequence[str] | Mapping[str, str | list[str]], where: str
) -> Columns:
    if not isinstance(inputs, Mapping):
        return {name: columns[name] for name in chosen_columns(columns, inputs, where)}
    groups = {name: chosen_columns(columns, value, where) for name, value in inputs.items()}
    for name, members in groups.items():
        texts = [member for member in members if columns[member].dtype == object]
        if texts and len(members) > 1:
            raise InputError(f"column '{texts[0]}' of input '{name}' is text", where=where)
    return {
        name: columns[members[0]]
        if len(members) == 1 and isinstance(inputs[name], str) and "*" not in inputs[name]
        else np.stack([columns[member] for member in members], 1)
        for name, members in groups.items()
    }


def _targets(
    columns: Columns, label: Sequence[str], names: Sequence[str], where: str
) -> NDArray[Any]:
    members = chosen_columns(columns, label, where)
    if len(members) > 1:
        return np.stack([columns[member] for member in members], 1)
    values = columns[members[0]]
    if values.dtype == object:
        place = {name: number for number, name in enumerate(names)}
        strange = next((v for v in values if v is not None and str(v) not in place), None)
        if strange is not None:
            message = f"label '{strange}' is not among the training labels"
            raise InputError(message, where=where, allowed=", ".join(names))
        return np.array([NO_LABEL if v is None else place[str(v)] for v in values], np.int64)
    return values


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts with labels, as a map-style data set for a tokenizer."""

    texts: NDArray[Any]
    targets: NDArray[Any]

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, row: int) -> tuple[str, Any]:
        return str(self.texts[row]), self.targets[row]

    @property
    def fingerprint(self) -> str:
        """A hash of all texts and labels."""
        return hashlib.sha256(
            repr((self.texts.tolist(), self.targets.tolist())).encode()
        ).hexdigest()
