"""The promise that a file has no operator in float, held against the file itself."""

from collections.abc import Iterable
from pathlib import Path

from edgekd.errors import ToolError
from edgekd.formats.operator_notes import by_kind


def refuse_floats(operators: Iterable[tuple[str, str]], path: Path) -> None:
    """Raise `ToolError` if there is any operator in float among pairs of kind and layer."""
    found = by_kind(operators)
    if found:
        raise ToolError(
            f"'strict' asks for integers alone, but the runtime computes in float: "
            f"{', '.join(found)}",
            where=str(path),
            hint="replace these operators in the network, or remove 'strict' from the recipe",
        )
