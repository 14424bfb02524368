"""Columns of CSV, TSV, JSON-lines and Parquet files as arrays."""

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgekd.errors import InputError, MissingPackage, nearest
from edgekd.installed import has_module
from edgekd.store import read_errors

Columns = dict[str, NDArray[Any]]
"""A table: arrays (N,) by name; texts as objects, missing numbers as NaN, missing texts as None."""


def read_table(path: Path) -> Columns:
    """The table in a file, by its ending. `InputError` for one that is missing or damaged."""
    readers: dict[str, Callable[[Path], Mapping[str, Sequence[Any]]]] = {
        ".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_jsonl, ".parquet": _read_parquet,
    }  # fmt: skip
    if path.suffix not in readers:
        raise InputError("not a table", where=str(path), allowed=", ".join(readers))
    columns = readers[path.suffix](path)
    lengths = {len(values) for values in columns.values()}
    if not columns or lengths == {0}:
        raise InputError("the table has no rows", where=str(path))
    return {name: _array(values) for name, values in columns.items()}


def _read_csv(path: Path) -> dict[str, list[Any]]:
    with read_errors(path, "a table"), path.open(newline="", encoding="utf-8-sig") as file:
        rows = csv.reader(file, delimiter="\t" if path.suffix == ".tsv" else ",")
        names = next(rows, [])
        columns: dict[str, list[Any]] = {name: [] for name in names}
        for number, row in enumerate(rows, 2):
            if len(row) != len(names):
                message = f"line {number} has {len(row)} fields, but the header has {len(names)}"
                raise InputError(message, where=str(path))
            for name, text in zip(names, row, strict=True):
                columns[name].append(text if text else None)
    return {name: _numbers(values) for name, values in columns.items()}


def _numbers(texts: list[Any]) -> list[Any]:
    """Texts as whole numbers if all of them are, or else as real ones, or as they are."""
    for kind in (int, float):
        try:
            return [None if text is None else kind(text) for text in texts]
        except ValueError:
            continue
    return texts


def _read_jsonl(path: Path) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    with read_errors(path, "a table"), path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(
                    f"line {number} is not JSON: {error.msg}", where=str(path)
                ) from None
            if not isinstance(row, dict) or (columns and set(row) != set(columns)):
                allowed = ", ".join(columns) or "an object"
                raise InputError(f"line {number} has other keys", where=str(path), allowed=allowed)
            for name, value in row.items():
                columns.setdefault(name, []).append(value)
    return columns


def _read_parquet(path: Path) -> dict[str, Any]:
    if not has_module("pyarrow"):
        raise MissingPackage("pyarrow", "tables", where=str(path))
    import pyarrow
    import pyarrow.parquet

    try:
        with read_errors(path, "a table"):
            table = pyarrow.parquet.read_table(path)
    except pyarrow.ArrowException as error:
        raise InputError(f"not a complete Parquet file: {error}", where=str(path)) from None
    return {name: table.column(name).to_pylist() for name in table.column_names}


def _array(values: Sequence[Any]) -> NDArray[Any]:
    missing = any(value is None for value in values)
    numbers = all(isinstance(value, int | float) for value in values if value is not None)
    if missing and numbers:
        return np.array([np.nan if value is None else value for value in values], np.float64)
    if numbers:
        return np.array(values)
    try:
        array = np.array(values)
    except ValueError:
        array = np.array(values, dtype=object)
    return array if array.dtype.kind in "iufb" else np.array(values, dtype=object)


def chosen_columns(table: Columns, patterns: Sequence[str] | str, where: str) -> list[str]:
    """The columns that the patterns (names, or with * and ?) name, in the table's order."""
    wanted = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in wanted:
        if not any(fnmatchcase(name, pattern) for name in table):
            raise InputError(
                f"no column '{pattern}'",
                where=where,
                allowed=", ".join(table),
                hint=nearest(pattern, table),
            )
    return [name for name in table if any(fnmatchcase(name, pattern) for pattern in wanted)]
