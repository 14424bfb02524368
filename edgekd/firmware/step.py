"""One call of a C kernel: its parameters, the tensors it reads and writes, and its purpose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekd.firmware.graph import Array, Node


@dataclass(frozen=True, eq=False)
class Table:
    """A constant array of the C file: int8, int32 or uint32, flat. Tables with the same content
    have the same `key`, so that layers can share them."""

    values: np.ndarray
    key: tuple[Any, ...]


@dataclass(frozen=True, eq=False)
class Step:
    """`kernel(&parameters, inputs..., output)`.

    `parameters` fill the kernel's struct in this order: numbers, lists of numbers and tables.
    `needs` are kernels whose C it uses. A step with `scratch` gets that many bytes of the arena for
    itself, passed as pointer and size; `on_stack` if it may be on the stack instead. `in_place` are
    positions of inputs whose memory the output may take over, if they are not read later. An output
    that begins at least `ahead` bytes before its input may overwrite it.
    """

    kernel: str
    parameters: Mapping[str, Any]
    inputs: tuple[Array, ...]
    output: Array
    about: str
    in_place: tuple[int, ...] = ()
    needs: tuple[str, ...] = field(default=())
    scratch: int | None = None
    on_stack: bool = False
    ahead: int | None = None


def weights_table(array: Array) -> Table:
    """A constant of the model."""
    assert array.values is not None
    return Table(array.values.reshape(-1), ("tensor", array.index))


def list_table(values: list[int], dtype: str, layer: Node | str, name: str) -> Table:
    """Numbers that the generator computed for one layer."""
    where = layer if isinstance(layer, str) else layer.where
    return Table(np.asarray(values, dtype), (where, name))


def shape_text(array: Array) -> str:
    """1x32x32x3."""
    return "x".join(str(size) for size in array.shape) or "scalar"


def about(node: Node, *inputs: Array) -> str:
    """CONV_2D 1x32x32x3 -> 1x32x32x16."""
    sources = ", ".join(shape_text(one) for one in inputs)
    return f"{node.kind} {sources} -> {', '.join(shape_text(one) for one in node.outputs)}"
