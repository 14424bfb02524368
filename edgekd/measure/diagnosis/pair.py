"""A float file and its quantized counterpart: which layers are the same, and where each one's
output is in either."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from edgekd.errors import InputError
from edgekd.formats.file_layers import FileLayer, file_layers, matched_layers
from edgekd.formats.graph import Graph, Op
from edgekd.formats.onnx_file import read_onnx
from edgekd.formats.tflite import read_tflite

_ACTIVATIONS = ("Relu", "Clip", "LeakyRelu", "PRelu", "HardSwish", "Sigmoid", "HardSigmoid", "RELU",
                "RELU6", "Identity")  # fmt: skip
LINEAR = ("QLinear", "com.microsoft.Q")
"""How operators begin that take integers and grids in one."""

LIMITS = {"int8": (-128, 127), "uint8": (0, 255), "int16": (-32768, 32767), "uint16": (0, 65535),
          "int4": (-8, 7), "uint4": (0, 15)}  # fmt: skip


@dataclass(frozen=True)
class Grid:
    """A scale, a zero point and the integers between which values are kept."""

    scale: float
    zero_point: int
    least: int
    most: int

    @property
    def low(self) -> float:
        """The least value."""
        return self.scale * (self.least - self.zero_point)

    @property
    def high(self) -> float:
        """The largest value."""
        return self.scale * (self.most - self.zero_point)

    def rounded(self, values: np.ndarray) -> np.ndarray:
        """The values on the grid."""
        steps = np.clip(np.rint(values / self.scale) + self.zero_point, self.least, self.most)
        result: np.ndarray = (steps - self.zero_point) * self.scale
        return result


@dataclass(frozen=True, eq=False)
class PairedLayer:
    """One layer in both files. `floating_output` and `quantized_output` are the tensors behind its
    activation; the grids are those of the quantized file, None where it stays in float. A layer
    `owns_input` if its input's grid is no other layer's: that of the file's input, a sum, a pool.
    """

    name: str
    floating: FileLayer
    quantized: FileLayer
    floating_output: str
    quantized_output: str
    output_grid: Grid | None
    input_grid: Grid | None
    input_key: str = ""
    owns_input: bool = True


@dataclass(frozen=True, eq=False)
class Pair:
    """Two files of one network."""

    floating_path: Path
    quantized_path: Path
    floating: Graph
    quantized: Graph
    layers: tuple[PairedLayer, ...]
    unmatched: tuple[str, ...]


def read_pair(floating: Path, quantized: Path) -> Pair:
    """Both files, with their layers paired by weights and order.

    Raises `InputError` if one is no model, if the first is quantized or the second is not, or if no
    layer is in both.
    """
    graphs = [_read(path) for path in (floating, quantized)]
    if _is_quantized(graphs[0]):
        raise InputError("this file is quantized: the float one comes first", where=str(floating),
                         hint=f"edgekd diagnose FLOAT {floating.name} --data DATA")  # fmt: skip
    if not _is_quantized(graphs[1]):
        raise InputError("no tensor of this file is quantized", where=str(quantized),
                         allowed="a file with integer activations or weights")  # fmt: skip
    found = [file_layers(graph) for graph in graphs]
    pairs = matched_layers(*found)
    if not pairs:
        counts = [f"{len(layers)} layers with weights" for layers in found]
        raise InputError(f"no layer of {floating.name} ({counts[0]}) is in it ({counts[1]})",
                         where=str(quantized))  # fmt: skip
    readers = [_readers(graph) for graph in graphs]
    layers = [_paired(graphs, readers, first, second) for first, second in pairs]
    owned: set[str] = {layer.quantized_output for layer in layers}
    for place, layer in enumerate(layers):
        layers[place] = replace(layer, owns_input=layer.input_key not in owned)
        owned.add(layer.input_key)
    repeats = Counter(layer.name for layer in layers)
    layers = [
        replace(layer, name=f"{layer.quantized.op.lower()} {layer.quantized.place}")
        if repeats[layer.name] > 1 or layer.name.startswith(("__main__", "serving_default"))
        else layer
        for layer in layers
    ]
    known = {id(first) for first, _ in pairs}
    unmatched = tuple(layer.name for layer in found[0] if id(layer) not in known)
    return Pair(floating, quantized, graphs[0], graphs[1], tuple(layers), unmatched)


def _read(path: Path) -> Graph:
    suffix = path.suffix.lower()
    if suffix not in (".onnx", ".tflite"):
        raise InputError(f"'{path.suffix}' files can't be diagnosed", where=str(path),
                         allowed=".onnx, .tflite")  # fmt: skip
    return read_onnx(path) if suffix == ".onnx" else read_tflite(path)


def _is_quantized(graph: Graph) -> bool:
    return any(tensor.scales for tensor in graph.tensors.values()) or any(
        op.op.startswith(LINEAR) for op in graph.ops
    )


def _readers(graph: Graph) -> dict[str, list[Op]]:
    readers: dict[str, list[Op]] = {}
    for op in graph.ops:
        for key in op.inputs:
            readers.setdefault(key, []).append(op)
    return readers


def _paired(
    graphs: Sequence[Graph],
    readers: Sequence[Mapping[str, list[Op]]],
    first: FileLayer,
    second: FileLayer,
) -> PairedLayer:
    output, grid, steps = _quantized_output(graphs[1], readers[1], second)
    if grid is not None and grid.low > -grid.scale / 2:
        steps = None  # a ReLU that the grid replaces is not in the quantized file
    name = first.name if not first.name.startswith("__main__") else second.name
    return PairedLayer(
        name=re.sub(r"_(weight|kernel).*$", "", name),
        floating=first,
        quantized=second,
        floating_output=_behind(graphs[0], readers[0], first.output, steps),
        quantized_output=output,
        output_grid=grid,
        input_grid=_grid(graphs[1], _quantized_source(graphs[1], second)),
        input_key=_quantized_source(graphs[1], second),
    )


def _quantized_output(
    graph: Graph, readers: Mapping[str, list[Op]], layer: FileLayer
) -> tuple[str, Grid | None, int | None]:
    """The layer's output on its grid, and how many activations lie before it; None for as many as
    there are, where the file has them in the layer itself."""
    if _grid(graph, layer.output) is not None:
        return layer.output, _grid(graph, layer.output), None
    key = layer.output
    if layer.op.startswith(LINEAR):
        return key, _linear_grid(graph, layer), None
    for steps in range(4):
        following = readers.get(key, [])
        quantizes = [op for op in following if op.op in ("QuantizeLinear", "QUANTIZE")]
        if quantizes:
            found = quantizes[0].outputs[0]
            return found, _grid(graph, found), steps
        if len(following) != 1 or following[0].op not in _ACTIVATIONS:
            break
        key = following[0].outputs[0]
    return layer.output, None, 0


def _behind(graph: Graph, readers: Mapping[str, list[Op]], key: str, steps: int | None) -> str:
    """The tensor that many activations behind a layer's output."""
    limit = 1 if steps is None else steps
    for _ in range(limit):
        following = readers.get(key, [])
        wanted = ("Relu", "Clip", "RELU", "RELU6") if steps is None else _ACTIVATIONS
        if len(following) != 1 or following[0].op not in wanted:
            break
        key = following[0].outputs[0]
    return key


def _quantized_source(graph: Graph, layer: FileLayer) -> str:
    if layer.op.startswith(LINEAR):
        return ""
    producers = {key: op for op in graph.ops for key in op.outputs}
    op = producers.get(layer.source)
    return op.inputs[0] if op is not None and op.op == "DequantizeLinear" else layer.source


def _linear_grid(graph: Graph, layer: FileLayer) -> Grid | None:
    op = graph.ops[layer.place]
    first = 7 if op.op == "com.microsoft.QGemm" else 6
    if len(op.inputs) < first + 2:
        return None
    scale, zero = (graph.tensors.get(key) for key in op.inputs[first : first + 2])
    if scale is None or scale.values is None or zero is None or zero.values is None:
        return None
    least, most = LIMITS[zero.dtype]
    return Grid(float(scale.values.reshape(-1)[0]), int(zero.values.reshape(-1)[0]), least, most)


def _grid(graph: Graph, key: str) -> Grid | None:
    tensor = graph.tensors.get(key)
    if tensor is None or len(tensor.scales) != 1 or tensor.dtype not in LIMITS:
        return None
    least, most = LIMITS[tensor.dtype]
    return Grid(tensor.scales[0], (tensor.zero_points or (0,))[0], least, most)


def renamed(pair: Pair, names: Mapping[str, str]) -> Pair:
    """The pair with other names for its layers."""
    layers = tuple(replace(each, name=names.get(each.name, each.name)) for each in pair.layers)
    return replace(pair, layers=layers)
