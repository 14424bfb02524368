"""The operators that can be converted, each with the function that computes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Value = Any
"""A tensor; or a NumPy array of up to one dimension that describes a shape, which may hold the
exporter's symbolic sizes; or None for an input that was left out."""


@dataclass(frozen=True)
class Node:
    """One operator of the file: its attributes, how many outputs it has, and the opset."""

    name: str
    op: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    outputs: int = 1
    opset: int = 0

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or its default."""
        return self.attributes.get(name, default)


Compute = Callable[..., Any]
OPERATORS: dict[str, Compute] = {}

F = TypeVar("F", bound=Compute)


def operator(*names: str) -> Callable[[F], F]:
    """Register a function of a node and its inputs for these operators."""

    def keep(function: F) -> F:
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return keep
