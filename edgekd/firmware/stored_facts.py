"""The facts stored in a TFLite file, validated like everything that comes from a file."""

from pathlib import Path
from typing import Any

from edgekd.firmware.facts import Facts
from edgekd.formats.tflite_metadata import read_metadata
from edgekd.values.tables import parse


def facts_in(path: Path) -> Facts:
    """The facts in a TFLite file, or none if it has no entry written by edgekd.

    Raises `InputError` for a damaged file or an entry with other keys or types.
    """
    table: dict[str, Any] = read_metadata(path)
    return parse(Facts, table, f"{path}: metadata")
