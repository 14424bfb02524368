"""From what users have (arrays, images, dicts, tuples) to trees of tensors of few types."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from edgekd.data.target_trees import is_tree, packed
from edgekd.data.tasks import NO_LABEL
from edgekd.errors import InputError
from edgekd.values.tree import Tree, mapped

LABELS = ("label", "labels", "target", "targets", "y")
"""The keys under which a sample that is a dict may have its target."""


def tree_of(value: Any, where: str) -> Tree:
    """Arrays, tensors, numbers and pictures in dicts and tuples as a tree of tensors.

    A list of numbers is an array; a list or tuple that has arrays in it is a tuple of trees. A
    picture (Pillow) becomes bytes (channels, height, width). `InputError` for other things.
    """
    if isinstance(value, Mapping):
        return {str(key): tree_of(part, f"{where}.{key}") for key, part in value.items()}
    if isinstance(value, Sequence) and any(_is_node(part) for part in value):
        parts = [tree_of(part, f"{where}.{place}") for place, part in enumerate(value)]
        named = isinstance(value, tuple) and hasattr(value, "_fields")
        return type(value)(*parts) if named else tuple(parts)
    return tensor_of(value, where)


def _is_node(part: Any) -> bool:
    return isinstance(part, Tensor | np.ndarray | Mapping) or hasattr(part, "getbands")


def tensor_of(value: Any, where: str) -> Tensor:
    """One array as a tensor: floating point in float32, integers in int64, bytes and truth values
    as they are."""
    if isinstance(value, Tensor):
        value = value.detach().cpu()
        return _cast(value)
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise InputError(f"not an array: {error}", where=where) from None
    if array.dtype.kind == "O":
        raise InputError("not an array of numbers", where=where)
    if array.dtype.kind not in "fiub":
        found = "text" if array.dtype.kind in "US" else str(array.dtype)
        hint = "turn it into ids: [data.preprocess] tokenizer" if found == "text" else ""
        message = f"{where.rpartition(' ')[2]} holds {found}"
        raise InputError(message, where=where, allowed="numbers", hint=hint)
    if hasattr(value, "getbands"):
        array = array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0)
    with np.errstate(over="ignore"):
        array = _numpy_cast(array)
    return torch.from_numpy(np.require(array, requirements=["C", "W", "A"]).reshape(array.shape))


def _numpy_cast(array: np.ndarray) -> np.ndarray:
    """Types that torch doesn't have (unsigned, other byte orders) too."""
    if array.dtype.kind == "f":
        return array.astype(np.float32, copy=False)
    if array.dtype.kind in "iu" and array.dtype != np.uint8:
        return array.astype(np.int64, copy=False)
    return array


def _cast(tensor: Tensor) -> Tensor:
    if tensor.is_floating_point():
        return tensor.float()
    return tensor if tensor.dtype in (torch.uint8, torch.bool) else tensor.long()


def split_sample(sample: Any, where: str) -> tuple[Any, Any]:
    """A data set's sample as its raw inputs and its label.

    A sample is (input, label), a dict with the label under one of `LABELS`, or an input alone,
    whose label is None. `InputError` for anything else.
    """
    if isinstance(sample, Mapping):
        inputs = {key: value for key, value in sample.items() if key not in LABELS}
        label = next((sample[key] for key in LABELS if key in sample), None)
        return next(iter(inputs.values())) if len(inputs) == 1 else inputs, label
    if isinstance(sample, Tensor | np.ndarray | str) or hasattr(sample, "getbands"):
        return sample, None
    if isinstance(sample, tuple | list) and len(sample) in (1, 2):
        return sample[0], sample[1] if len(sample) == 2 else None
    size = f" of {len(sample)}" if isinstance(sample, tuple | list) else ""
    raise InputError(
        f"is a {type(sample).__name__}{size}", where=where, allowed="(input, label), a dict"
    )


def target_of(label: Any, where: str) -> Tensor:
    """A target as a tensor; a whole number is an integer, whatever its type. None is
    `NO_LABEL`; a dict or tuple of arrays is one row of numbers."""
    if label is None:
        return torch.tensor(NO_LABEL)
    if is_tree(label):
        return packed(tree_of(label, where), where)
    target = tensor_of(label, where)
    if not target.ndim and target.is_floating_point() and float(target) == int(target):
        return target.long()
    return target


def batch_of(sample: Tree) -> Tree:
    """A sample as a batch of one."""
    return mapped(lambda leaf: leaf.unsqueeze(0), sample)
