"""What an ONNX file holds, read without running it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekd.errors import InputError, MissingPackage


@dataclass(frozen=True)
class OnnxTensor:
    """An input or output; an axis without a fixed size is None."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class OnnxDescription:
    """Inputs, outputs, how often each operator occurs, and the constants that make up the model.

    `constant_bytes` and `parameters` count initializers and Constant nodes alike: some exporters
    write every weight as a node. `external` are the files beside it that hold weights.
    """

    inputs: tuple[OnnxTensor, ...]
    outputs: tuple[OnnxTensor, ...]
    operators: dict[str, int]
    parameters: int
    constant_bytes: int
    external: tuple[Path, ...]


def describe_onnx(path: Path) -> OnnxDescription:
    """Of a file; MissingPackage without `onnx`, InputError when it isn't a whole ONNX model."""
    model = _read(path)
    import onnx

    graph = model.graph
    constants = list(graph.initializer)
    for node in graph.node:
        if node.op_type == "Constant":
            constants += [part.t for part in node.attribute if part.name == "value"]
    names = {tensor.name for tensor in graph.initializer}
    operators: dict[str, int] = {}
    for node in graph.node:
        operators[node.op_type] = operators.get(node.op_type, 0) + 1
    sizes = [_count(tensor) for tensor in constants]
    widths = [
        onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize for tensor in constants
    ]
    return OnnxDescription(
        inputs=tuple(_tensor(value) for value in graph.input if value.name not in names),
        outputs=tuple(_tensor(value) for value in graph.output),
        operators=operators,
        parameters=sum(sizes),
        constant_bytes=sum(count * width for count, width in zip(sizes, widths, strict=True)),
        external=_external(constants, path),
    )


def external_files(path: Path) -> tuple[Path, ...]:
    """The files beside an ONNX file that hold its weights; none where `onnx` isn't installed."""
    try:
        return describe_onnx(path).external
    except MissingPackage:
        return ()


def _read(path: Path) -> Any:
    try:
        import onnx
    except ImportError:
        raise MissingPackage("onnx", "onnx", where=str(path)) from None
    try:
        model = onnx.load(path, load_external_data=False)
    except FileNotFoundError:
        raise InputError("no such file", where=str(path)) from None
    except OSError as error:
        raise InputError(f"not readable: {error.strerror}", where=str(path)) from None
    except Exception:  # protobuf's DecodeError, whose module has no type stubs
        raise InputError("not a whole ONNX file", where=str(path)) from None
    if not model.graph.node or not model.graph.output:
        raise InputError("an ONNX file without a graph", where=str(path))
    return model


def _tensor(value: Any) -> OnnxTensor:
    import onnx

    kind = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in kind.shape.dim)
    dtype = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
    return OnnxTensor(value.name, shape, dtype)


def _count(tensor: Any) -> int:
    count = 1
    for size in tensor.dims:
        count *= size
    return count


def _external(constants: list[Any], path: Path) -> tuple[Path, ...]:
    names = {
        entry.value
        for tensor in constants
        for entry in tensor.external_data
        if entry.key == "location"
    }
    return tuple(path.parent / name for name in sorted(names))
