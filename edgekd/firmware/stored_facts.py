"""The facts that a TFLite file carries, checked as everything that comes from a file."""

from pathlib import Path
from typing import Any

from edgekd.config import Value, parse
from edgekd.firmware.facts import Facts
from edgekd.formats.tflite_metadata import read_metadata


class _Stored(Value):
    """The entry as `edgekd compress` writes it; each fact may be missing."""

    name: str = ""
    version: str = ""
    recipe_hash: str = ""
    licence: str = ""
    accuracy_percent: float | None = None
    labels: tuple[str, ...] = ()


def facts_in(path: Path) -> Facts:
    """The facts in a TFLite file, none of them if it has no entry of edgekd's.

    Raises `InputError` for a damaged file or an entry with other keys or types.
    """
    table: dict[str, Any] = read_metadata(path)
    stored = parse(_Stored, table, f"{path}: metadata")
    return Facts(**stored.model_dump())
