"""Values between operators: tensors, and the sizes of tensors as NumPy arrays.

Sizes are kept apart so that a shape that a file computes stays a shape when it is exported again,
also one with a free batch size.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

DTYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip
"""PyTorch's type for each of ONNX's `TensorProto.DataType`."""


def is_sizes(value: Any) -> bool:
    """Whether it is a size or a list of sizes, not a tensor."""
    return isinstance(value, np.ndarray)


def sizes(values: Any) -> np.ndarray:
    """Integers, among them perhaps symbolic ones, as sizes."""
    kind = np.int64 if all(isinstance(each, int | np.integer) for each in values) else object
    array = np.empty(len(values), kind)
    array[:] = values
    return array


def size(value: Any) -> np.ndarray:
    """One size, without a dimension."""
    kind = np.int64 if isinstance(value, int | np.integer) else object
    array = np.empty((), kind)
    array[()] = value
    return array


def integers(value: Any) -> list[Any]:
    """A list of sizes or a constant tensor as Python's integers."""
    if isinstance(value, Tensor):
        return [int(each) for each in value.reshape(-1).tolist()]
    return [int(each) if isinstance(each, np.integer) else each for each in value.reshape(-1)]


def integer(value: Any) -> Any:
    """A single size as Python's integer."""
    return integers(value)[0]


def tensor(value: Any, like: Tensor | None = None) -> Tensor:
    """Sizes as a tensor; a tensor as it is."""
    if isinstance(value, Tensor):
        return value
    device = like.device if like is not None else None
    if value.dtype != object:
        return torch.as_tensor(value.copy(), device=device)
    parts = [torch.scalar_tensor(each, dtype=torch.int64) for each in value.reshape(-1)]
    return torch.stack(parts).reshape(value.shape)


def numbers(value: Any) -> list[float]:
    """The values of a constant, as floats."""
    found: list[float] = value.reshape(-1).tolist()
    return found
