"""An int8 TFLite graph with all sizes, indices and scales checked, ready to become C.

An external file is not trusted: what `read_network` returns has static shapes, int8 activations
with one valid scale each, constants of exactly their shape's size, and operators that only read
tensors computed before them. Inputs may also be int32, as indices are, and inner tensors bool.
Everything else is refused by name.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError
from edgekd.firmware.tables import with_tables
from edgekd.formats.graph import Graph, Op, Tensor
from edgekd.formats.tflite import read_tflite

MAX_DIMENSION = 1 << 24
MAX_ELEMENTS = 1 << 27
MAX_RANK = 6
MAX_OPERATORS = 2048
SCALES = (1e-20, 1e20)

LEAVING = ("int8",)
COMPUTED = ("int8", "bool")
ENTERING = ("int8", "int32")
CONSTANT = ("int8", "int32", "bool")


@dataclass(frozen=True, eq=False)
class Array:
    """One tensor: int8 (or int32: a constant, or an input of indices; or bool), static shape,
    `values` in that shape if constant, int8 for bool.

    `scales` has one entry, or one per channel along `axis`; it is empty for plain integers. `name`
    is the file's, for inputs and outputs.
    """

    index: int
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_point: int = 0
    axis: int = 0
    values: np.ndarray | None = None
    name: str = ""

    @property
    def elements(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Its size in memory."""
        return self.elements * (4 if self.dtype == "int32" else 1)

    @property
    def scale(self) -> float:
        """The only scale of a computed tensor."""
        return self.scales[0]

    @property
    def grid(self) -> tuple[float, int]:
        """Scale and zero point, to compare the grids of two tensors."""
        return self.scale, self.zero_point


@dataclass(frozen=True, eq=False)
class Node:
    """One operator. `where` names it in errors; an omitted input is None."""

    kind: str
    inputs: tuple[Array | None, ...]
    outputs: tuple[Array, ...]
    options: Mapping[str, Any] = field(default_factory=dict)
    where: str = ""

    def refuse(self, why: str, hint: str = "") -> InputError:
        """The error that names this operator."""
        return InputError(f"{self.kind}: {why}", where=self.where, hint=hint)

    def computed(self, index: int) -> Array:
        """An input that is int8 with one scale; it may also be constant."""
        array = self.inputs[index] if index < len(self.inputs) else None
        if array is None or array.dtype != "int8" or len(array.scales) != 1:
            raise self.refuse(f"input {index} is not an int8 tensor with one scale")
        return array

    def mask(self, index: int) -> Array:
        """An input that is bool; it may also be constant."""
        array = self.inputs[index] if index < len(self.inputs) else None
        if array is None or array.dtype != "bool":
            raise self.refuse(f"input {index} is not bool")
        return array

    def constant(self, index: int, dtype: str) -> np.ndarray:
        """The values of an input that has to be constant."""
        array = self.inputs[index] if index < len(self.inputs) else None
        if array is None or array.values is None or array.dtype != dtype:
            raise self.refuse(f"input {index} is not a constant of {dtype}")
        return array.values

    @property
    def output(self) -> Array:
        """The only output, int8 with one scale."""
        return self._only_output("int8")

    @property
    def output_mask(self) -> Array:
        """The only output, bool."""
        return self._only_output("bool")

    def _only_output(self, dtype: str) -> Array:
        if len(self.outputs) != 1:
            raise self.refuse(f"it has {len(self.outputs)} outputs, but only one is supported")
        if self.outputs[0].dtype != dtype:
            raise self.refuse(f"its output is {self.outputs[0].dtype}, not {dtype}")
        return self.outputs[0]

    def option(self, name: str, default: Any = None) -> Any:
        """A field of its options table; a missing table counts as corrupt."""
        if name not in self.options and default is None:
            raise self.refuse("its options are missing")
        return self.options.get(name, default)


@dataclass(frozen=True, eq=False)
class Network:
    """Operators in order of execution, and the tensors at both ends."""

    nodes: tuple[Node, ...]
    inputs: tuple[Array, ...]
    outputs: tuple[Array, ...]


def read_network(path: Path) -> Network:
    """The int8 network in a TFLite file.

    Raises:
        InputError: not TFLite, corrupt, inconsistent, not static, or not int8 throughout; the
        operator or tensor is named.
    """
    return network_of(read_tflite(path), str(path))


def network_of(graph: Graph, where: str) -> Network:
    """The checked network of a graph; `where` names the file in errors."""
    if graph.facts.get("subgraphs") != 1:
        raise InputError(
            f"it has {graph.facts.get('subgraphs')} subgraphs", where=where, allowed="1"
        )
    if len(graph.ops) > MAX_OPERATORS:
        raise InputError(
            f"it has {len(graph.ops)} operators", where=where, allowed=f"up to {MAX_OPERATORS}"
        )
    graph = with_tables(graph)
    arrays = _Arrays(graph)
    inputs = tuple(
        arrays.computed(key, f"{where}: input {n}", ENTERING) for n, key in enumerate(graph.inputs)
    )
    if not inputs or len({one.index for one in inputs}) != len(inputs):
        raise InputError("it has no input, or lists one twice", where=where)
    made = {one.index for one in inputs}
    nodes = tuple(_node(op, index, arrays, made, where) for index, op in enumerate(graph.ops))
    outputs = tuple(
        arrays.computed(key, f"{where}: output {n}", LEAVING) for n, key in enumerate(graph.outputs)
    )
    produced = {one.index for node in nodes for one in node.outputs}
    if not outputs or any(one.index not in produced for one in outputs):
        raise InputError("it has no output, or one that no operator computes", where=where)
    if len({one.index for one in outputs}) != len(outputs):
        raise InputError("it lists an output twice", where=where)
    return Network(nodes, inputs, outputs)


def _node(op: Op, index: int, arrays: "_Arrays", made: set[int], where: str) -> Node:
    """One operator whose inputs are constants or already computed; adds its outputs to `made`."""
    place = f"{where}: operator {index}"
    kind = op.op if op.op.isidentifier() else "CUSTOM"
    for key in (*op.inputs, *op.outputs):
        if key and graph_dtype(arrays.graph, key).startswith(("float", "bfloat")):
            raise InputError(
                f"{kind} computes in float ({graph_dtype(arrays.graph, key)})",
                where=place,
                allowed="int8 throughout",
                hint="`edgekd inspect FILE` lists what computes in float: quantize it, or replace "
                "it by an operator with an int8 kernel",
            )
    inputs = tuple(arrays.read(key, place) if key else None for key in op.inputs)
    for one in inputs:
        if one is not None and one.values is None and one.index not in made:
            raise InputError(f"{kind} reads a tensor before it is computed", where=place)
    outputs = tuple(arrays.computed(key, place) for key in op.outputs if key)
    for one in outputs:
        if one.index in made or one.values is not None:
            raise InputError(f"{kind} overwrites a tensor that already exists", where=place)
        made.add(one.index)
    if not outputs:
        raise InputError(f"{kind} has no output", where=place)
    return Node(kind, inputs, outputs, op.attributes, place)


def graph_dtype(graph: Graph, key: str) -> str:
    """The data type of a tensor in the file."""
    return graph.tensors[key].dtype


class _Arrays:
    """The checked tensors, each one once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self._index = {key: number for number, key in enumerate(graph.tensors)}
        self._made: dict[str, Array] = {}

    def read(self, key: str, place: str) -> Array:
        """A tensor that an operator may read: a computed one, or a constant."""
        if key not in self._made:
            if self.graph.tensors[key].constant_bytes is None:
                return self.computed(key, place)
            self._made[key] = self._constant(key, place)
        return self._made[key]

    def computed(self, key: str, place: str, allowed: tuple[str, ...] = COMPUTED) -> Array:
        """A tensor that is not constant: int8 with one scale, or of another type if allowed."""
        if not key:
            raise InputError("a tensor is missing", where=place)
        tensor = self.graph.tensors[key]
        if tensor.dtype not in allowed or tensor.constant_bytes is not None:
            raise InputError(
                f"tensor {self._index[key]} is {tensor.dtype}"
                + (", and constant" if tensor.constant_bytes else ""),
                where=place,
                allowed=f"{' or '.join(allowed)}, computed",
            )
        if key not in self._made:
            shape = _shape(tensor, place)
            if tensor.dtype != "int8":
                self._made[key] = Array(self._index[key], shape, tensor.dtype, name=tensor.name)
                return self._made[key]
            scales, zero_point = _grid(tensor, place)
            if len(scales) != 1:
                raise InputError(f"{len(scales)} scales for one tensor", where=place, allowed="1")
            self._made[key] = Array(
                self._index[key], shape, "int8", scales, zero_point, name=tensor.name
            )
        return self._made[key]

    def _constant(self, key: str, place: str) -> Array:
        tensor = self.graph.tensors[key]
        shape = _shape(tensor, place)
        if tensor.dtype not in CONSTANT:
            raise InputError(
                f"a constant of type {tensor.dtype}", where=place, allowed=", ".join(CONSTANT)
            )
        size = math.prod(shape)
        if tensor.values is None or len(tensor.values) < size:
            raise InputError(f"a constant without its {size} values", where=place)
        values = tensor.values[:size].reshape(shape)
        if tensor.dtype == "int32":
            return Array(self._index[key], shape, "int32", values=values)
        if tensor.dtype == "bool":
            return Array(self._index[key], shape, "bool", values=(values != 0).astype(np.int8))
        scales, zero_point = _grid(tensor, place)
        if len(scales) > 1 and not (
            0 <= tensor.axis < len(shape) and shape[tensor.axis] == len(scales)
        ):
            raise InputError(f"{len(scales)} scales do not fit the shape {shape}", where=place)
        return Array(self._index[key], shape, "int8", scales, zero_point, tensor.axis, values)


def _shape(tensor: Tensor, place: str) -> tuple[int, ...]:
    shape = tensor.shape or ()
    if any(size < 0 for size in shape):
        raise InputError(
            "an open dimension",
            where=place,
            hint="convert the model with a fixed batch size and use that file",
        )
    large = len(shape) > MAX_RANK or max(shape, default=1) > MAX_DIMENSION
    if large or not 0 < math.prod(shape) <= MAX_ELEMENTS:
        raise InputError(
            f"a tensor of shape {shape}",
            where=place,
            allowed=f"up to {MAX_RANK} dimensions and {MAX_ELEMENTS} elements, none of them 0",
        )
    return shape


def _grid(tensor: Tensor, place: str) -> tuple[tuple[float, ...], int]:
    """Scales and the zero point of an int8 tensor; with several scales, the zero point is 0."""
    if not tensor.scales or len(tensor.zero_points) not in (0, 1, len(tensor.scales)):
        raise InputError("an int8 tensor without scale and zero point", where=place)
    if not all(SCALES[0] < scale < SCALES[1] for scale in tensor.scales):
        raise InputError("a scale that is not positive and finite", where=place)
    points = set(tensor.zero_points) or {0}
    if len(points) != 1 or not -128 <= min(points) <= 127:
        raise InputError("a zero point outside the range of int8", where=place)
    return tensor.scales, points.pop()
