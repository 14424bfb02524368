"""The tensors inside a float or quantized file, as floats, channels first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.errors import InputError, first_line
from edgekd.formats.graph import Graph
from edgekd.formats.tflite_inputs import as_tflite_input

Arrays = dict[str, np.ndarray]


def inner_values(
    path: Path,
    graph: Graph,
    inputs: Sequence[np.ndarray],
    keys: Sequence[str],
    grids: Mapping[str, tuple[float, int]] = {},
) -> Arrays:
    """The values (N, ...) of tensors for inputs (N, ...), one per input of the file, as floats.

    Integers are dequantized, by `grids` (scale and zero point) where the file's tensors don't have
    theirs, and images are channels first. Raises `InputError` for inputs that don't
    fit.
    """
    read = _of_onnx if path.suffix.lower() == ".onnx" else _of_tflite
    try:
        found = read(path, graph, inputs, keys)
        return {key: _on(values, grids.get(key)) for key, values in found.items()}
    except (RuntimeError, ValueError) as error:
        raise InputError(f"it does not run on these samples: {first_line(error)}",
                         where=str(path)) from None  # fmt: skip
    except Exception as error:
        if type(error).__module__.startswith("onnxruntime"):
            raise InputError(f"it does not run on these samples: {first_line(error)}",
                             where=str(path)) from None  # fmt: skip
        raise


def _on(values: np.ndarray, grid: tuple[float, int] | None) -> np.ndarray:
    return values if grid is None else (values - grid[1]) * grid[0]


def session_of(model: Any) -> Any:
    """An ONNX Runtime session of a model or file, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    content = str(model) if isinstance(model, Path) else model.SerializeToString()
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def run_onnx(session: Any, inputs: Sequence[np.ndarray], names: Sequence[str]) -> list[np.ndarray]:
    """Outputs (N, ...) by name, in batches of the size that the model has."""
    ends = session.get_inputs()
    fixed = next((int(end.shape[0]) for end in ends
                  if end.shape and isinstance(end.shape[0], int)), 0)  # fmt: skip
    count, size = len(inputs[0]), fixed or len(inputs[0])
    parts = []
    for start in range(0, count - count % size, size):
        feed = {
            end.name: np.ascontiguousarray(x[start : start + size], _dtype(end.type))
            for end, x in zip(ends, inputs, strict=True)
        }
        parts.append(session.run(list(names), feed))
    return [np.concatenate([np.atleast_1d(row[n]) for row in parts]) for n in range(len(names))]


def _dtype(name: str) -> str:
    kind = name.removeprefix("tensor(").rstrip(")")
    return {"float": "float32", "double": "float64"}.get(kind, kind)


def with_outputs(model: Any, names: Sequence[str]) -> Any:
    """The model with these tensors as further outputs; the runtime infers their types."""
    import onnx

    known = {output.name for output in model.graph.output}
    for name in names:
        if name not in known:
            model.graph.output.append(onnx.helper.make_empty_tensor_value_info(name))
    return model


def _of_onnx(path: Path, graph: Graph, inputs: Sequence[np.ndarray], keys: Sequence[str]) -> Arrays:
    import onnx

    wanted = list(dict.fromkeys(keys))
    session = session_of(with_outputs(onnx.load(path), wanted))
    found = run_onnx(session, inputs, wanted)
    return {key: _floats(value, graph, key) for key, value in zip(wanted, found, strict=True)}


def _floats(value: np.ndarray, graph: Graph, key: str) -> np.ndarray:
    tensor = graph.tensors.get(key)
    floats: np.ndarray = value.astype(np.float64)
    if tensor is not None and len(tensor.scales) == 1 and value.dtype.kind in "iu":
        floats = (floats - (tensor.zero_points or (0,))[0]) * tensor.scales[0]
    return floats


def _of_tflite(
    path: Path, graph: Graph, inputs: Sequence[np.ndarray], keys: Sequence[str]
) -> Arrays:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_path=str(path), experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=OpResolverType.BUILTIN_REF,
    )  # fmt: skip
    interpreter.allocate_tensors()
    entries = interpreter.get_input_details()
    numbers = {key: int(key.partition(":")[0]) for key in keys}
    rows: dict[str, list[np.ndarray]] = {key: [] for key in keys}
    for sample in range(len(inputs[0])):
        for entry, x in zip(entries, inputs, strict=True):
            interpreter.set_tensor(entry["index"], as_tflite_input(x[sample : sample + 1], entry))
        interpreter.invoke()
        for key, number in numbers.items():
            value = _floats(interpreter.get_tensor(number), graph, key)
            rows[key].append(np.moveaxis(value, -1, 1) if value.ndim == 4 else value)
    return {key: np.concatenate(parts) for key, parts in rows.items()}
