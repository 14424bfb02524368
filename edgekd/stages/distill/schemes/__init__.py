"""How teacher and student work together: one scheme per file, named in a recipe as its file.

A scheme decides which networks take part, which of them are trained, what each step compares, and
which network remains. It trains only through `fit` and `teach`, so it has every guarantee of the
training loop: each phase has its own folder and epoch checkpoint, a phase that has finished is read
back instead of trained again, and a run that was killed ends with the same bits as an unbroken one.

The recipe's `losses` compare each network that learns with the one that teaches it in this scheme,
and `label_weight` weights the labels. A scheme's fields are what its table may set.
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
    """One way of teaching a student; its fields are what a recipe's table may set.

    `example` holds the keys that its table requires, `around` the other parts of a recipe that it
    needs, as TOML; `edgekd methods` shows both. `any_structure` says that networks may have several
    inputs and outputs.
    """

    any_structure: ClassVar[bool] = False
    example: ClassVar[Mapping[str, Any]] = {}
    around: ClassVar[str] = ""

    @abstractmethod
    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        """The reasons why the scheme can't work here; nothing is trained or changed."""

    @abstractmethod
    def cost(self, context: Context) -> str:
        """The line that the plan prints; called only after a check without faults."""

    @property
    def reads_losses(self) -> bool:
        """Whether the recipe's `losses` are used at all, or only the scheme's own loss."""
        return True

    def content(self, folder: Path) -> str:
        """A hash of the contents of its files and networks, relative to the recipe's `folder`."""
        return ""

    @abstractmethod
    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        """Train `student`, possibly in place; teachers stay exactly as they are."""


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
