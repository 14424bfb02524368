"""Targets that are several tensors, as one row of real numbers a sample.

A task of the user's own may have any tree of targets: a class and a box, a start and an end. Data
sets keep them as (N, D) numbers like any other target, and the task hands the tree to the user's
functions.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edgekd.errors import InputError
from edgekd.values.tree import Tree, leaf_names, leaves

EXACT = 2**24
"""Whole numbers up to here are exact in float32."""


@dataclass(frozen=True)
class TargetForm:
    """The structure of a sample's targets, with each leaf's name, shape and type."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    types: tuple[torch.dtype, ...]
    structure: Any = field(repr=False)

    @classmethod
    def of(cls, sample: Tree) -> "TargetForm":
        """The form of one sample's targets."""
        parts = leaves(sample)
        return cls(
            tuple(leaf_names(sample, "y")),
            tuple(tuple(part.shape) for part in parts),
            tuple(part.dtype for part in parts),
            pytree.tree_structure(sample),
        )

    def __str__(self) -> str:
        parts = zip(self.names, self.shapes, self.types, strict=True)
        return "targets " + ", ".join(f"{n} {s} {str(t)[6:]}" for n, s, t in parts)

    def unpacked(self, y: Tensor) -> Tree:
        """The tree of targets (B, ...) that rows (B, D) stand for."""
        sizes = [prod(shape) for shape in self.shapes]
        parts = torch.split(y, sizes, 1)
        values = [
            part.reshape(len(y), *shape).to(kind)
            for part, shape, kind in zip(parts, self.shapes, self.types, strict=True)
        ]
        return pytree.tree_unflatten(values, self.structure)


def is_tree(label: Any) -> bool:
    """Whether a label is a dict, or a tuple or list of tensors or arrays."""
    if isinstance(label, Mapping):
        return True
    return isinstance(label, tuple | list) and any(hasattr(part, "shape") for part in label)


def packed(tree: Tree, where: str, rows: bool = False) -> Tensor:
    """The numbers (D,) of a sample's targets, or (N, D) of those of several as `rows`.
    `InputError` for whole numbers that float32 can't hold, and for counts that differ."""
    parts = leaves(tree)
    for name, part in zip(leaf_names(tree, "y"), parts, strict=True):
        most = 0 if part.is_floating_point() or not part.numel() else int(part.long().abs().max())
        if most > EXACT:
            message = f"{name} has the value {most}"
            raise InputError(message, where=where, allowed=f"whole numbers up to {EXACT:,}")
        if rows and len(part) != len(parts[0]):
            message = f"{name} has {len(part)} targets, and the first has {len(parts[0])}"
            raise InputError(message, where=where)
    return torch.cat([_flat(part.float(), rows) for part in parts], -1)


def _flat(part: Tensor, rows: bool) -> Tensor:
    return part.reshape(len(part), -1) if rows else part.reshape(-1)
