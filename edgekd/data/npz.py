"""A data set in one .npz file."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.data.samples import Samples
from edgekd.data.source import Source, samples_of
from edgekd.data.tasks import Task
from edgekd.data.tasks.classification import CLASSIFICATION
from edgekd.errors import EdgekdError, InputError, nearest, raise_all
from edgekd.store import read_errors

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
OPTIONAL = ("x_validation", "y_validation", "classes")


def read_npz(path: Path, task: Task = CLASSIFICATION) -> Source:
    """x_train, y_train, x_test, y_test and optionally x_validation, y_validation and `classes`.
    Several inputs are arrays x_train.NAME, x_test.NAME instead.

    Arrays of objects are rejected: nothing is unpickled.
    """
    arrays = read_arrays(path)
    raise_all(_name_faults(list(arrays), str(path)))
    parts: dict[str, Samples] = {}
    faults: list[EdgekdError] = []
    for part in ("train", "validation", "test"):
        x = _inputs(arrays, part)
        if x is None:
            continue
        try:
            parts[part] = samples_of(x, arrays[f"y_{part}"], f"{path}: {part}", task)
        except InputError as error:
            faults.append(error)
    raise_all(faults)
    classes = None
    if "classes" in arrays:
        if arrays["classes"].size != 1 or arrays["classes"].dtype.kind not in "iu":
            raise InputError("'classes' is not a single integer", where=str(path))
        classes = int(arrays["classes"].item())
    return Source(parts["train"], parts["test"], parts.get("validation"), classes)


def read_arrays(path: Path) -> dict[str, Any]:
    """Every array of an .npz, without unpickling; one InputError for anything that is wrong."""
    arrays: dict[str, Any] = {}
    key = ""
    try:
        with read_errors(path, "an .npz file"):
            loaded = np.load(path, allow_pickle=False)
        if not isinstance(loaded, np.lib.npyio.NpzFile):
            raise InputError("a single array, not an .npz file", where=str(path))
        with loaded:
            for key in loaded.files:
                arrays[key] = loaded[key]
    except ValueError as error:
        if "pickle" in str(error).lower():
            place = f"array '{key}' contains objects" if key else "it is not an .npz file"
            raise InputError(
                f"{place}: nothing is unpickled", where=str(path), allowed="arrays of numbers"
            ) from None
        raise InputError(f"not a complete .npz file: {error}", where=str(path)) from None
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        raise InputError(f"not a complete .npz file: {error}", where=str(path)) from None
    return arrays


def npy_bytes(array: NDArray[Any]) -> bytes:
    """The bytes of an .npy file."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def _inputs(arrays: dict[str, Any], part: str) -> Any:
    """A part's one input, or its inputs by name; None if it has none."""
    if f"x_{part}" in arrays:
        return arrays[f"x_{part}"]
    prefix = f"x_{part}."
    named = {key.removeprefix(prefix): arrays[key] for key in arrays if key.startswith(prefix)}
    return named or None


def _name_faults(names: list[str], where: str) -> list[EdgekdError]:
    """Faults in the names of arrays; those of several inputs count as the one that they make."""
    known = [*REQUIRED, *OPTIONAL]
    several = {name for name in names if name.startswith("x_") and "." in name}
    names = [name for name in names if name not in several]
    mixed = {name.partition(".")[0] for name in several}
    names += sorted(mixed - {*names})
    faults: list[EdgekdError] = [
        InputError(
            f"unknown array '{name}'",
            where=where,
            allowed=", ".join(known),
            hint=nearest(name, known),
        )
        for name in names
        if name not in known
    ]
    required = list(REQUIRED)
    if "x_validation" in names or "y_validation" in names:
        required += ["x_validation", "y_validation"]
    faults += [
        InputError(f"array '{name}' is missing", where=where, allowed=", ".join(known))
        for name in required
        if name not in names
    ]
    return faults
