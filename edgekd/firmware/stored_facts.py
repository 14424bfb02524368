"""The facts that a TFLite file carries, checked as everything that comes from a file."""

from pathlib import Path
from typing import Any

from edgekd.firmware.facts import Facts
from edgekd.formats.tflite_metadata import read_metadata
from edgekd.values.tables import parse


def facts_in(path: Path) -> Facts:
    """The facts in a TFLite file, none of them if it has no entry of edgekd's.

    Raises `InputError` for a damaged file or an entry with other keys or types.
    """
    table: dict[str, Any] = read_metadata(path)
    return parse(Facts, table, f"{path}: metadata")
