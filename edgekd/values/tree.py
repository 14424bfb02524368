"""Trees of tensors: the inputs and outputs of a network, whatever their structure.

A tree is a tensor, or a tuple, list or dict of trees (`torch.utils._pytree`). Its leaves are
tensors whose first dimension counts samples. A single tensor is the tree with one leaf. Leaves are
always in the same order: that of the tuple or list, and that in which a dict was filled. A leaf's
name is its path, "boxes", "maps.0"; a lone tensor has the name that its reader gives it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from edgekd.errors import InputError

Tree = Any
"""A tensor, or a tuple, list or dict of trees; not checked by the type checker."""

OutputName = str | int | None
"""One output of a network, by name or position; None is the one that the task reads."""


def leaves(tree: Tree) -> list[Tensor]:
    """The tensors, in order."""
    found: list[Tensor] = pytree.tree_leaves(tree)
    return found


def leaf_names(tree: Tree, lone: str = "input") -> list[str]:
    """Each leaf's path with its steps joined by dots; `lone` for a single tensor."""
    paths = [path for path, _ in pytree.tree_flatten_with_path(tree)[0]]
    return [".".join(_step(key) for key in path) or lone for path in paths]


def named_leaves(tree: Tree, lone: str = "input") -> dict[str, Tensor]:
    """The tensors by name, in order."""
    return dict(zip(leaf_names(tree, lone), leaves(tree), strict=True))


def _step(key: Any) -> str:
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def mapped(function: Callable[[Tensor], Any], tree: Tree, *others: Tree) -> Tree:
    """A tree of the same structure, of what `function` returns for each leaf and the leaves of
    `others` at the same place."""
    return pytree.tree_map(function, tree, *others)


def like(tree: Tree, tensors: Sequence[Any]) -> Tree:
    """A tree with the structure of `tree` and these leaves."""
    return pytree.tree_unflatten(list(tensors), pytree.tree_structure(tree))


def count(tree: Tree) -> int:
    """How many samples there are: the size of the leaves' first dimension."""
    return len(leaves(tree)[0])


def rows(tree: Tree, index: Tensor | slice) -> Tree:
    """The samples at those positions, or of that slice, in every leaf."""
    return pytree.tree_map(lambda leaf: leaf[index], tree)


def one(tree: Tree, row: int) -> Tree:
    """The sample at that position, without a batch dimension."""
    return pytree.tree_map(lambda leaf: leaf[row], tree)


def chunks(tree: Tree, size: int) -> Iterator[Tree]:
    """The samples in order, `size` at a time; the last part may be smaller."""
    for start in range(0, count(tree), size):
        yield rows(tree, slice(start, start + size))


def concatenated(trees: Sequence[Tree]) -> Tree:
    """Trees of one structure, their leaves joined along the first dimension."""
    if len(trees) == 1:
        return trees[0]
    return pytree.tree_map(lambda *same: torch.cat(same), *trees)


def moved(tree: Tree, device: torch.device | str, copy: bool = False) -> Tree:
    """Every leaf on that device; `copy` makes new tensors even where they are there already."""
    return pytree.tree_map(lambda leaf: leaf.to(device, copy=copy), tree)


def as_float(tree: Tree) -> Tree:
    """Floating-point leaves in float32, others as they are."""
    return pytree.tree_map(lambda leaf: leaf.float() if leaf.is_floating_point() else leaf, tree)


def sample_shapes(tree: Tree) -> tuple[tuple[int, ...], ...]:
    """The shape of one sample in each leaf: without the first dimension."""
    return tuple(tuple(leaf.shape[1:]) for leaf in leaves(tree))


def forms(tree: Tree) -> list[str]:
    """Each leaf's name, type and size of a sample: what a graph of these inputs depends on."""
    named = named_leaves(tree)
    return [f"{name} {leaf.dtype} {tuple(leaf.shape[1:])}" for name, leaf in named.items()]


def same_form(tree: Tree, other: Tree) -> bool:
    """Whether both have one structure, and leaves of the same types and sizes of a sample."""
    return (
        pytree.tree_structure(tree) == pytree.tree_structure(other)
        and sample_shapes(tree) == sample_shapes(other)
        and [leaf.dtype for leaf in leaves(tree)] == [leaf.dtype for leaf in leaves(other)]
    )


def described(tree: Tree) -> str:
    """The leaves as messages name them: "(3, 32, 32)" for one tensor of floats, otherwise
    "ids (128,) int64, mask (128,) bool"."""
    if isinstance(tree, Tensor):
        kind = "" if tree.dtype == torch.float32 else f" {_kind(tree)}"
        return f"{tuple(tree.shape[1:])}{kind}"
    named = named_leaves(tree)
    return ", ".join(f"{n} {tuple(leaf.shape[1:])} {_kind(leaf)}" for n, leaf in named.items())


def _kind(leaf: Tensor) -> str:
    return str(leaf.dtype).removeprefix("torch.")


def leaf(tree: Tree, name: OutputName, where: str) -> Tensor:
    """One leaf: by its name, or by its position. Without a name it is the only one, or else the one
    called "logits". Raises `InputError` where there is no such leaf, or no way to choose."""
    named = named_leaves(tree, "output")
    tensors = list(named.values())
    if isinstance(name, int):
        if -len(tensors) <= name < len(tensors):
            return tensors[name]
    elif name is not None:
        if name in named:
            return named[name]
    elif len(tensors) == 1:
        return tensors[0]
    elif "logits" in named:
        return named["logits"]
    if name is None:
        message, hint = f"there are {len(tensors)} outputs", "say which: output = 'NAME'"
    else:
        message, hint = f"there is no output {name!r}", ""
    raise InputError(message, where=where, allowed=", ".join(named), hint=hint)
