"""How teacher and student meet: one scheme a file; the file's name is its name in a recipe.

A scheme decides which networks take part, which of them learn, what each step compares, and what is
left at the end. It trains through `fit` and `teach` alone, so everything that
the one training loop promises holds for it: each phase has a folder and an epoch checkpoint of its
own there, a phase that ended is read back instead of trained again, and a run that was killed ends
with the same bits as an unbroken one.

The recipe's `losses` compare whoever learns with whoever teaches it in that scheme, and
`label_weight` is the share of the labels. A scheme's fields are what its table may set.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.training.context import Context
from edgekd.values.tables import Value, parse_entry


@dataclass(frozen=True)
class SchemeResult:
    """The trained student, and a note for the report on how it was trained."""

    module: nn.Module
    note: str = ""


class Scheme(Value):
    """One way for teacher and student to meet; its fields are what a recipe's table may set.

    `example` are the keys that its table can't do without, `around` what else of a recipe it needs,
    as TOML; `edgekd methods` shows both.
    """

    example: ClassVar[Mapping[str, Any]] = {}
    around: ClassVar[str] = ""

    @abstractmethod
    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        """Every reason why it can't work here; nothing is trained or changed."""

    @abstractmethod
    def cost(self, context: Context) -> str:
        """What the plan prints of it, after a check without faults."""

    @property
    def reads_losses(self) -> bool:
        """Whether the recipe's `losses` are compared at all, or it has only a loss of its own."""
        return True

    def content(self, folder: Path) -> str:
        """A hash of what its files and networks hold, relative to the recipe's `folder`."""
        return ""

    @abstractmethod
    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        """Train `student`, which may be changed; teachers are left as they are, to the bit."""


def scheme_of(given: str | Mapping[str, Any], where: str) -> Scheme:
    """The scheme that a recipe names, or describes in a table with its `name` and parameters."""
    table = {"name": given} if isinstance(given, str) else dict(given)
    name = table.pop("name", None)
    if not isinstance(name, str):
        raise InputError(
            "the scheme has no 'name'",
            where=where,
            allowed=", ".join(SCHEMES.names()),
            hint='scheme = { name = "mutual", peers = 2 }',
        )
    return parse_entry(SCHEMES.get(name, where), Scheme, table, f"{where} ({name})")
