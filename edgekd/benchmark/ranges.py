"""Which values a file's random inputs take: what the user says, or what its tables allow."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from edgekd.benchmark.options import Range
from edgekd.errors import EdgekdError, InputError
from edgekd.formats.index_bounds import index_bounds
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.tflite import read_tflite
from edgekd.values.artifact import TensorInfo

Bounds = dict[str, tuple[float, float]]


def ranges_of(
    path: Path, inputs: Sequence[TensorInfo], given: Sequence[Range], signature: str = ""
) -> tuple[Bounds, list[str]]:
    """The bounds of inputs by name, and a note for each input of integers on what is drawn.

    An index into a table stays within the table, unless the user gives another range. Raises
    `InputError` for a range that the input's type can't hold.
    """
    asked = {each.name: (each.low, each.high) for each in given}
    allowed = _table_bounds(path, inputs, signature)
    bounds: Bounds = {}
    notes = []
    for info in inputs:
        if info.name in asked:
            bounds[info.name] = _checked(info, asked[info.name], allowed.get(info.name), path)
        elif not _is_index(info):
            continue
        elif info.name in allowed:
            low, high = bounds[info.name] = allowed[info.name]
            notes.append(f"input '{info.name}' indexes a table: {low} to {high} are drawn")
        elif np.dtype(info.dtype).itemsize > 1:
            hint = f"--input {info.name}=LOW..HIGH"
            notes.append(f"input '{info.name}' is {info.dtype}: 0 and 1 are drawn ({hint})")
    return bounds, notes


def _table_bounds(
    path: Path, inputs: Sequence[TensorInfo], signature: str
) -> dict[str, tuple[int, int]]:
    """What the file says about its indices, as far as it can be read here."""
    if not any(_is_index(info) for info in inputs):
        return {}
    try:
        if path.suffix.lower() == ".onnx":
            return index_bounds(read_onnx(path))
        if path.suffix.lower() == ".tflite":
            return index_bounds(read_tflite(path, signature))
    except EdgekdError:  # the device's runtime has loaded it all the same
        pass
    return {}


def _is_index(info: TensorInfo) -> bool:
    return info.dtype.startswith(("int", "uint")) and info.scale is None


def _checked(
    info: TensorInfo, bounds: tuple[float, float], table: tuple[int, int] | None, path: Path
) -> tuple[float, float]:
    where = f"{path}, --input {info.name}"
    if info.dtype == "bool":
        least, most = 0.0, 1.0
    elif table is not None:
        least, most = float(table[0] - table[1] - 1), float(table[1])  # negative: from the end
    elif _is_index(info):
        limits = np.iinfo(info.dtype)
        least, most = float(limits.min), float(limits.max)
    else:
        return bounds
    if any(value != int(value) for value in bounds):
        raise InputError(f"input '{info.name}' takes whole numbers", where=where)
    if bounds[0] < least or bounds[1] > most:
        what = f"is {info.dtype}" if table is None else f"indexes a table of {table[1] + 1:,} rows"
        raise InputError(
            f"input '{info.name}' {what}", where=where, allowed=f"{least:.0f} to {most:.0f}"
        )
    return bounds
