"""Reading `torch.export` programs (.pt2) from outside without executing anything in them.

`torch.export.load` of PyTorch 2.13 unpickles what an archive marks as pickled, loads compiled
libraries, evaluates symbolic expressions, imports modules named in a tree spec and writes names
into generated Python. So an archive is inspected first, through the same reader that loads it,
and only one with raw tensors, plain names and known operators goes on.
"""

import io
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch

from edgekd.errors import EdgekdError, InputError, raise_all, summary_of
from edgekd.store import read_errors

FILES = re.compile(
    r"models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt"
    r"|archive_format|archive_version|byteorder|\.?data/(version|serialization_id)|version|extra/.*"
)
OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims|quantized_decomposed|torchao)\.\w+(\.\w+)?"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|cond|scan|while_loop)"
    r"|torch\.sym_(float|int|max|min|not|sqrt|ite|sum)|math\.(ceil|floor|trunc)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pos|pow|eq|ne|lt|le|gt|ge|and_|or_)"
)
READS_FILES = re.compile(r"torch\.ops\.aten\.(from_file|set_|set\b|_load|save)")
NAME = re.compile(r"[\w.\-]*")
# Sympy's parser evaluates expressions, so only its own names and size symbols (s77, u0) may occur.
WORD = (
    r"(Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv"
    r"|FloorToInt|CeilToInt|TruncToInt|floor|ceiling|Eq|Ne|Where|positive|nonnegative|integer"
    r"|True|False|None|oo|int_oo|[a-z]{1,2}\d+)"
)
EXPRESSION = re.compile(rf"('?\b{WORD}\b'?|\b\d+\b|[\s()+\-*/,<>=.])*")
MODE_ARGUMENT = {"aten.batch_norm.default": 5, "aten.dropout.default": 2}
NAMES = ("name", "parameter_name", "buffer_name", "tensor_constant_name", "fqn", "path_name")
TREE_TYPES = (None, "builtins.tuple", "builtins.list", "builtins.dict")


class Program(torch.fx.GraphModule):
    """An exported program with train and eval modes restored, as far as its graph shows them.
    `torch.export` fixes the mode of each batch norm and dropout as an argument; `train()` and
    `eval()` set those. Model code that read `training` itself stays as exported.
    """

    def train(self, mode: bool = True) -> Self:
        """Switch every batch norm and dropout of the graph."""
        super().train(mode)
        for node in self.graph.nodes:
            position = MODE_ARGUMENT.get(str(node.target))
            if position is not None and len(node.args) > position:
                node.args = (*node.args[:position], mode, *node.args[position + 1 :])
        self.recompile()
        return self


def load_program(path: Path) -> Program:
    """The program of a .pt2 file with a free batch size, in eval mode. Raises `InputError` for any
    other file."""
    raw = _read(path)
    _inspect(raw, str(path))
    logger = logging.getLogger("torch.export")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        program = torch.export.load(io.BytesIO(raw))
        loaded = program.module(check_guards=False)
        module = Program(loaded, loaded.graph)
    except Exception as error:
        raise InputError(
            f"can't be loaded by PyTorch {torch.__version__}: {summary_of(error)[:200]}",
            where=str(path),
            hint="save it again with this version's torch.export.save",
        ) from error
    finally:
        logger.setLevel(level)
    _check_inputs(program, str(path))
    return module.eval()


def _read(path: Path) -> bytes:
    with read_errors(path):
        return path.read_bytes()


def _inspect(raw: bytes, where: str) -> None:
    """Reject anything but a complete archive of raw tensors, plain names and known operators."""
    from torch.export.pt2_archive._package import PT2ArchiveReader

    try:
        reader = PT2ArchiveReader(io.BytesIO(raw))
        names = reader.get_file_names()
    except Exception:  # whatever the C++ reader throws: its text is about miniz, not the file
        raise InputError(
            "not a complete torch.export file",
            where=where,
            allowed="a file written by torch.export.save (PyTorch 2.8 or later)",
        ) from None
    foreign = [name for name in names if not FILES.fullmatch(name)]
    if foreign:
        raise InputError(
            f"contains '{foreign[0]}', which could be code",
            where=where,
            allowed="one program and its tensors, as torch.export.save writes them",
        )
    try:
        tables = {
            name: json.loads(reader.read_bytes(name)) for name in names if name.endswith(".json")
        }
        _inspect_inputs(reader.read_bytes("data/sample_inputs/model.pt"), where)
    except InputError:
        raise
    except (ValueError, RecursionError, RuntimeError) as error:
        raise InputError(
            f"not a complete torch.export file: {summary_of(error)[:200]}", where=where
        ) from None
    faults: list[EdgekdError] = [
        InputError(fault, where=where, allowed="tensors and PyTorch's own operators")
        for table in tables.values()
        for fault in _faults(table)
    ]
    raise_all(faults[:4])


def _inspect_inputs(raw: bytes, where: str) -> None:
    try:
        torch.load(io.BytesIO(raw), weights_only=True)
    except Exception:
        raise InputError(
            "its sample inputs are pickled objects, which are not loaded",
            where=where,
            allowed="tensors",
        ) from None


def _faults(table: Any) -> Iterator[str]:
    """What in one of the archive's JSON trees could make the loader run code."""
    if isinstance(table, list):
        for item in table:
            yield from _faults(item)
    if not isinstance(table, dict):
        return
    for key, value in table.items():
        if not NAME.fullmatch(key):
            yield f"'{key}' is not a plain name"
        elif key == "use_pickle" and value:
            yield "a tensor is pickled, and nothing is unpickled"
        elif key == "target" and isinstance(value, str):
            if not OPERATORS.fullmatch(value) or READS_FILES.match(value):
                yield f"unknown operator '{value}'"
        elif key == "expr_str" and not EXPRESSION.fullmatch(str(value)):
            yield f"'{value}' is not a plain expression"
        elif key in NAMES and isinstance(value, str) and not NAME.fullmatch(value):
            yield f"'{value}' is not a plain name"
        elif key == "forward_arg_names" and not all(NAME.fullmatch(str(n)) for n in value or []):
            yield f"{value} are not plain names"
        elif key in ("in_spec", "out_spec") and isinstance(value, str):
            yield from _tree_faults(json.loads(value))
        else:
            yield from _faults(value)


def _tree_faults(spec: Any) -> Iterator[str]:
    """What in a serialized pytree isn't a plain tuple, list or dictionary with plain keys."""
    for item in spec if isinstance(spec, list) else []:
        yield from _tree_faults(item)
    if not isinstance(spec, dict):
        return
    context = spec.get("context")
    keys = json.loads(context) if isinstance(context, str) else context
    plain = keys is None or (
        isinstance(keys, list) and all(isinstance(k, str) and NAME.fullmatch(k) for k in keys)
    )
    if spec.get("type") not in TREE_TYPES or not plain:
        yield f"inputs or outputs of type {spec.get('type')}"
    for child in spec.get("children_spec") or []:
        yield from _tree_faults(child)


def _check_inputs(program: torch.export.ExportedProgram, where: str) -> None:
    """Refuse a program without inputs, and one of whose inputs has no free first dimension."""
    nodes = {node.name: node for node in program.graph.nodes}
    names = [name for name in program.graph_signature.user_inputs if isinstance(name, str)]
    if not names:
        raise InputError("it has no inputs", where=where, allowed="one tensor or several")
    for name in names:
        value = nodes[name].meta.get("val")
        if not isinstance(value, torch.Tensor) or not value.dim():
            raise InputError(
                f"its input '{name}' is no tensor with a batch", where=where, allowed="(B, ...)"
            )
        if isinstance(value.shape[0], int):
            one = "" if len(names) == 1 else f" in '{name}'"
            raise InputError(
                f"its batch size is fixed at {value.shape[0]}{one}",
                where=where,
                hint="export with a batch of 2 and dynamic_shapes=({0: torch.export.Dim.AUTO},)",
            )
