"""A `torch.export` program (.pt2) read as a ZIP of JSON files, without unpickling anything."""

import json
import zipfile
from pathlib import Path
from typing import Any

from edgekd.errors import InputError
from edgekd.formats.graph import Graph, Op, Tensor, read_bytes

# torch/_export/serde/schema.py, ScalarType
DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8", 30: "float8",
}  # fmt: skip
JSON_BYTES = 1 << 28


def read_program(path: Path) -> Graph:
    """The graph of a .pt2 file. Raises `InputError` if it is not one, or is truncated or
    damaged."""
    read_bytes(path)
    try:
        with zipfile.ZipFile(path) as archive:
            tables = _json(archive, "models/model.json", "serialized_exported_program.json")
        return _graph(tables)
    except (
        zipfile.BadZipFile, ArithmeticError, AttributeError, EOFError, IndexError, KeyError,
        MemoryError, NotImplementedError, OSError, RecursionError, RuntimeError, TypeError,
        ValueError,
    ) as error:  # fmt: skip
        raise InputError(
            f"not a torch.export program, or truncated: {error}", where=str(path)
        ) from None


def _json(archive: zipfile.ZipFile, *endings: str) -> dict[str, Any]:
    for entry in archive.infolist():
        if entry.filename.endswith(endings):
            if entry.file_size > JSON_BYTES:
                raise ValueError(f"{entry.filename} claims {entry.file_size} bytes")
            table = json.loads(archive.read(entry))
            if not isinstance(table, dict):
                raise ValueError(f"{entry.filename} is not a table")
            return table
    raise ValueError("it has no model.json")


def _graph(program: dict[str, Any]) -> Graph:
    module = program["graph_module"]
    graph = module["graph"]
    tensors = {
        name: Tensor(name, _sizes(meta["sizes"]), DTYPES.get(meta["dtype"], "unknown"))
        for name, meta in graph["tensor_values"].items()
    }
    inputs = []
    for spec in module["signature"]["input_specs"]:
        ((kind, table),) = spec.items()
        name = _name_of(table.get("arg", {}))
        if kind == "user_input":
            inputs.append(name)
        elif name in tensors:
            tensor = tensors[name]
            tensors[name] = Tensor(
                name, tensor.shape, tensor.dtype, constant_bytes=tensor.bytes or 0
            )
    ops = tuple(_op(node) for node in graph["nodes"])
    if not ops:
        raise ValueError("it has no operators")
    return Graph(
        ops=ops,
        tensors=tensors,
        inputs=tuple(name for name in inputs if name in tensors),
        outputs=tuple(tensor for tensor in map(_name_of, graph["outputs"]) if tensor in tensors),
        facts={"torch": str(program.get("torch_version", ""))},
    )


def _sizes(sizes: list[dict[str, Any]]) -> tuple[int, ...]:
    return tuple(int(one["as_int"]) if "as_int" in one else -1 for one in sizes)


def _op(node: dict[str, Any]) -> Op:
    target = str(node["target"]).removeprefix("torch.ops.")
    names = [name for one in node["inputs"] for name in _names_in(one["arg"])]
    outputs = [name for one in node["outputs"] for name in _names_in(one)]
    return Op(
        name=outputs[0] if outputs else target,
        op=target,
        inputs=tuple(names),
        outputs=tuple(outputs),
    )


def _names_in(argument: dict[str, Any]) -> list[str]:
    """The tensors in one argument, which may be a single one or a list."""
    many = argument.get("as_tensors")
    if isinstance(many, list):
        return [str(one["name"]) for one in many]
    name = _name_of(argument)
    return [name] if name else []


def _name_of(argument: dict[str, Any]) -> str:
    inner = argument.get("as_tensor", argument)
    return str(inner.get("name", "")) if isinstance(inner, dict) else ""
