"""A folder that Hugging Face's `datasets` saved."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.data.class_folders import PARTS
from edgekd.data.sets import SETS
from edgekd.errors import InputError, MissingPackage, first_line, nearest
from edgekd.installed import has_module


@SETS.register(paper="")
def datasets_folder(path: Path, inputs: list[str] = [], label: str = "label") -> Any:  # noqa: B006
    """A `DatasetDict` with train and test (or validation) that `save_to_disk` wrote to PATH.

    Columns in `inputs`, by default all but `label`, are the inputs by their names; one column is
    the only input. Images are decoded; a text needs `tokenizer` under [data.preprocess].
    """
    if not has_module("datasets"):
        raise MissingPackage("datasets", "datasets", where=str(path))
    from datasets import DatasetDict, load_from_disk

    try:
        saved = load_from_disk(str(path))
    except Exception as error:
        message = f"not a folder that datasets saved: {first_line(error)}"
        raise InputError(message, where=str(path)) from None
    if not isinstance(saved, DatasetDict):
        hint = "dataset.train_test_split(0.2).save_to_disk(...) makes both"
        raise InputError("there is one part only", where=str(path), allowed="a dict", hint=hint)
    parts = {part: saved[name] for part, names in PARTS.items() for name in names if name in saved}
    if "test" not in parts and "validation" in parts:
        parts["test"] = parts.pop("validation")
    for part in ("train", "test"):
        if part not in parts:
            raise InputError(f"there is no '{part}'", where=str(path), allowed=", ".join(saved))
    known = parts["train"].column_names
    for name in (*inputs, label):
        if name not in known:
            hint = nearest(name, known)
            raise InputError(
                f"no column '{name}'", where=str(path), allowed=", ".join(known), hint=hint
            )
    names = tuple(inputs) or tuple(name for name in known if name != label)
    classes = getattr(parts["train"].features[label], "names", None)
    made = {part: Columns(rows, names, label) for part, rows in parts.items()}
    return {**made, "labels": classes}


@dataclass(frozen=True, eq=False)
class Columns:
    """Some columns of a saved set, as a map-style data set; rows are memory-mapped."""

    rows: Any
    inputs: tuple[str, ...]
    label: str

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Any:
        values = self.rows[row]
        x = {name: values[name] for name in self.inputs}
        return (next(iter(x.values())) if len(x) == 1 else x), values[self.label]

    @property
    def targets(self) -> Any:
        """All labels."""
        return self.rows[self.label][:]

    @property
    def fingerprint(self) -> str:
        """The hash by which datasets tells its caches apart."""
        return f"{self.rows._fingerprint} {self.inputs} {self.label}"
