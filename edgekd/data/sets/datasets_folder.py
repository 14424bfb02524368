"""A folder that Hugging Face's `datasets` saved."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from edgekd.data.arrow_columns import ArrowColumns, cut_files
from edgekd.data.class_folders import PARTS
from edgekd.data.sets import SETS
from edgekd.data.split import held_out
from edgekd.data.tasks import NO_LABEL
from edgekd.errors import InputError, MissingPackage, first_line, nearest
from edgekd.installed import has_module


@SETS.register(paper="")
def datasets_folder(
    path: Path,
    inputs: list[str] = [],  # noqa: B006 - never changed
    label: str = "label",
    test: float = Field(default=0.2, gt=0, lt=1),
) -> Any:
    """What `save_to_disk` wrote to PATH: a `DatasetDict` with train and test (or validation), or
    one `Dataset` (or train alone), `test` of which are held back.

    Columns in `inputs`, by default all but `label`, are the inputs by their names; one column is
    the only input. Images are decoded; a text needs `tokenizer` under [data.preprocess]. A label is
    a class (`ClassLabel`, a number or a text) or a real number; an empty one is missing.
    """
    if not has_module("datasets"):
        raise MissingPackage("datasets", "datasets", where=str(path))
    parts = _parts(_loaded(path), path)
    train = parts["train"]
    known = train.column_names
    for name in (*inputs, label):
        if name not in known:
            message, hint = f"no column '{name}'", nearest(name, known)
            raise InputError(message, where=str(path), allowed=", ".join(known), hint=hint)
    names = tuple(inputs) or tuple(name for name in known if name != label)
    _refuse_columns(train, names, label, str(path))
    _refuse_other_parts(parts, (*names, label), path)
    classes = _classes(train, label)
    made = {part: ArrowColumns(rows, names, label, classes) for part, rows in parts.items()}
    if "test" not in made:
        made = _held_back(made["train"], test)
    return {**made, "labels": classes or None}


def _loaded(path: Path) -> Any:
    """The `Dataset` or `DatasetDict`, memory-mapped. `InputError` for anything else on the disk."""
    from datasets import load_from_disk

    if not path.is_dir():
        raise InputError("no such folder", where=str(path))
    for file in cut_files(path):
        raise InputError(
            "the file is cut off", where=str(file), hint="copy it again, or save the set again"
        )
    try:
        return load_from_disk(str(path))
    except Exception as error:
        message = f"not a folder that datasets saved: {first_line(error)}"
        allowed = "a folder that Dataset.save_to_disk or DatasetDict.save_to_disk wrote"
        raise InputError(message, where=str(path), allowed=allowed) from None


def _parts(saved: Any, path: Path) -> dict[str, Any]:
    """Rows by part, in the format of plain Python; a set without test samples is train alone."""
    from datasets import DatasetDict

    if not isinstance(saved, DatasetDict):
        return {"train": saved.with_format(None)}
    parts = {
        part: next(saved[name] for name in names if name in saved).with_format(None)
        for part, names in PARTS.items()
        if any(name in saved for name in names)
    }
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    missing = next((part for part in ("train", "test") if part not in parts), None)
    if missing == "train" or (missing and len(saved) > len(parts)):
        strange = [name for name in saved if not any(name in names for names in PARTS.values())]
        raise InputError(
            f"there is no split '{missing}', only {', '.join(saved)}",
            where=str(path),
            allowed=", ".join(name for names in PARTS.values() for name in names),
            hint=next((f"rename '{name}' and save again" for name in strange), ""),
        )
    return parts


def _refuse_columns(train: Any, names: Sequence[str], label: str, where: str) -> None:
    """`InputError` for columns that can't be inputs, or not beside each other."""
    if label in names:
        others = [name for name in names if name != label]
        hint = f"arguments.inputs = {others}" if others else ""
        raise InputError(f"'{label}' is the label and an input", where=where, hint=hint)
    if not names:
        allowed = f"a column beside '{label}'"
        raise InputError("no column is left as an input", where=where, allowed=allowed)
    for name in names:
        feature = train.features[name]
        if type(feature).__name__ in ("Audio", "Video", "Pdf"):
            raise InputError(
                f"column '{name}' holds {type(feature).__name__}",
                where=where,
                allowed="images, texts and numbers",
                hint="sounds: save them as WAV files and set source = 'wav-folder'",
            )
        if len(names) > 1 and _is_text(feature):
            raise InputError(
                f"column '{name}' is text",
                where=where,
                allowed="numbers, or one text for a tokenizer",
                hint=f"arguments.inputs = ['{name}'], or name the other columns",
            )


def _is_text(feature: Any) -> bool:
    return getattr(feature, "dtype", "") in ("string", "large_string")


def _refuse_other_parts(parts: Mapping[str, Any], names: Sequence[str], path: Path) -> None:
    """`InputError` for a part whose columns aren't those of train: their classes in another order
    would be wrong in silence."""
    train = parts["train"].features
    for part, rows in parts.items():
        for name in names:
            if name not in rows.features:
                allowed = ", ".join(rows.column_names)
                message, where = f"no column '{name}', which train has", f"{path}: {part}"
                raise InputError(message, where=where, allowed=allowed)
            if rows.features[name] != train[name]:
                raise InputError(
                    f"column '{name}' is {rows.features[name]}",
                    where=f"{path}: {part}",
                    allowed=f"{train[name]}, as in train",
                    hint="cast one to the features of the other and save again",
                )


def _classes(train: Any, label: str) -> tuple[str, ...]:
    """The names of the classes: those that the set has, or its texts in order; empty for
    numbers."""
    feature = train.features[label]
    if _is_text(feature):
        return tuple(sorted({text for text in train[label] if text is not None}))
    return tuple(getattr(feature, "names", None) or ())


def _held_back(whole: ArrowColumns, share: float) -> dict[str, ArrowColumns]:
    """Samples to train on and to test with: the same share of each class, all labelled."""
    targets = whole.targets
    classes = all(target is None or isinstance(target, int) for target in targets)
    numbers = [NO_LABEL if target is None else target if classes else 0 for target in targets]
    strata = torch.tensor(numbers)
    labelled = (strata != NO_LABEL).nonzero().flatten()
    _, held = held_out(strata[labelled], share)
    hold = labelled[held]
    mask = torch.ones(len(strata), dtype=torch.bool)
    mask[hold] = False
    return {"train": whole.chosen(mask.nonzero().flatten()), "test": whole.chosen(hold)}
