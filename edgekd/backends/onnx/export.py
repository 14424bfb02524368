"""Exports a candidate as an ONNX file, with nothing in it that differs between two runs."""

import copy
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn

from edgekd.backends.onnx.attention import with_settled_attention
from edgekd.backends.onnx.flat_softmax import part_flat_softmaxes
from edgekd.backends.onnx.half import half_precision
from edgekd.backends.onnx.lookups import insert_tables, tanh_by_sigmoid
from edgekd.backends.onnx.optimized import float_operators
from edgekd.backends.onnx.pads import pad_integers
from edgekd.backends.onnx.transposed_products import part_transposes
from edgekd.errors import ToolError, summary_of
from edgekd.formats.integers_only import refuse_floats
from edgekd.formats.onnx_steps import fold_steps
from edgekd.formats.operator_notes import by_kind
from edgekd.quant.export import export_graph, exported
from edgekd.quant.inspection import (
    float_islands,
    functions_of_one_value,
    integer_precision,
)
from edgekd.quant.onnx_weights import opset_for, store_narrow
from edgekd.quant.rewrite import as_uint8
from edgekd.quant.tables import Table, leaky_relu, with_tables
from edgekd.quant.weight_only import Stored, as_float
from edgekd.store import write_beside
from edgekd.values.artifact import (
    Artifact,
    OpPlacement,
    Precision,
    TensorInfo,
    in_float_fact,
    sha256_of,
)
from edgekd.values.candidate import Candidate
from edgekd.values.sizes import OpenSize
from edgekd.values.target import Target
from edgekd.values.tree import Tree, leaf_names
from edgekd.version import __version__

OPSET = 21


def export_artifact(
    candidate: Candidate, target: Target, placements: Sequence[OpPlacement], path: Path
) -> Artifact:
    """Write the candidate to `path`; the file has a free batch size wherever the model has one."""
    graph, stored = _graph_for(candidate, target)
    tables: list[Table] = []
    if candidate.integers_only:
        graph, tables = with_tables(cast(fx.GraphModule, graph), lambda chain: True, leaky_relu)
    model = to_onnx(graph, candidate.example, candidate.open)
    if candidate.form == "int8":
        insert_tables(model, tables)
        tanh_by_sigmoid(model)
        part_flat_softmaxes(model)
        if target.quantization.activations != "int8-symmetric":  # TensorRT's, which pads QDQ pairs
            pad_integers(model)
    if candidate.form == "fp16":
        part_transposes(model)
    store_narrow(model, stored, "backends.onnx")
    _add_steps(model, candidate)
    inputs, outputs = tensors_of(model)
    fold_steps(model)
    write_onnx(model, path)
    islands = float_operators(path) if candidate.form == "int8" else []
    if candidate.integers_only:
        refuse_floats(islands, path)
    facts = {"opset": opset_for(stored, OPSET), "input_layout": "NCHW"}
    return Artifact(
        path=path,
        format="onnx",
        runtime="onnxruntime",
        precision=_precision(candidate, stored),
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=outputs,
        placements=tuple(placements),
        versions=_versions(),
        lineage=candidate.lineage,
        notes=tuple(_notes(candidate, target, stored, islands)),
        facts=facts | in_float_fact(len(islands)),
    )


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "onnx", "onnxscript", "onnxruntime")
    return {name: version(name) for name in names}


def _graph_for(candidate: Candidate, target: Target) -> tuple[nn.Module, list[Stored]]:
    """The module to export, and the weights that the file stores narrower than float."""
    if candidate.form == "weights":
        return as_float(cast(fx.GraphModule, candidate.module))
    if candidate.form == "int8":
        graph = cast(fx.GraphModule, candidate.module)
        unsigned = target.quantization.activations == "uint8-affine"
        return as_uint8(graph) if unsigned else graph, []
    graph = export_graph(
        copy.deepcopy(candidate.module),
        candidate.example,
        "backends.onnx",
        keep_layers=candidate.form == "float",
    )
    return half_precision(graph) if candidate.form == "fp16" else graph, []


def _precision(candidate: Candidate, stored: Sequence[Stored]) -> Precision:
    if candidate.form == "float":
        return "fp32"
    if candidate.form == "int8":
        return integer_precision(candidate.module)
    if candidate.form != "weights":
        return candidate.form
    kinds = {each.dtype for each in stored}
    return cast(Precision, kinds.pop()) if len(kinds) == 1 else "mixed"


def to_onnx(graph: nn.Module, example: Tree, sizes: Sequence[OpenSize] = ()) -> Any:
    """The `ModelProto` of a graph, with nothing in it that differs between two runs or machines.
    Its open dimensions are called "batch" and by the names of `sizes`."""
    import logging

    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        program = exported(with_settled_attention(graph), example)
        inputs, outputs = edge_names(graph, example)
        converted = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=[f"{_EDGE}in.{number}" for number in range(len(inputs))],
            output_names=[f"{_EDGE}out.{number}" for number in range(len(outputs))],
        )
        assert converted is not None
        model = converted.model_proto
        _name_edges(model, inputs, outputs)
    except Exception as error:
        raise ToolError(
            f"the ONNX exporter failed: {summary_of(_root(error))}", where="backends.onnx"
        ) from error
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
    _clean(model)
    _name_dimensions(model, sizes)
    return model


def _root(error: BaseException) -> BaseException:
    """What an error comes from in the end: the exporter's own says only that it failed."""
    return _root(error.__cause__) if error.__cause__ is not None else error


_EDGE = "edgekd.edge."
"""What the names of inputs and outputs begin with while the exporter runs, which would give an
output the name of a value inside."""


def _name_edges(model: Any, inputs: list[str], outputs: list[str]) -> None:
    """Give inputs and outputs their names, and values inside that have one of them another."""
    edges = [value.name for value in (*model.graph.input, *model.graph.output)]
    wanted = dict(zip(edges, (*inputs, *outputs), strict=True))
    taken = {name: f"{name}.inner" for name in wanted.values()}

    def renamed(name: str) -> str:
        return wanted.get(name) or taken.get(name) or name

    def rename(graph: Any) -> None:
        for node in graph.node:
            node.input[:] = [renamed(name) for name in node.input]
            node.output[:] = [renamed(name) for name in node.output]
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rename(attribute.g)
        for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
            value.name = renamed(value.name)

    rename(model.graph)


def edge_names(graph: nn.Module, example: Tree) -> tuple[list[str], list[str]]:
    """The names of a file's inputs and outputs: those of the leaves, with "_out" behind an output
    that is called like an input, as the state of a streaming network is."""
    inputs = leaf_names(example, "input")
    with torch.no_grad():
        outputs = leaf_names(graph(example), "output")
    return inputs, [f"{name}_out" if name in inputs else name for name in outputs]


def _clean(model: Any) -> None:
    """Remove stack traces and paths, name the free dimension, and pool as one operator."""
    model.producer_name, model.producer_version = "edgekd", __version__
    del model.metadata_props[:]
    model.doc_string = model.graph.doc_string = ""
    model.graph.name = "main"
    del model.graph.metadata_props[:]
    _pool_globally(model)
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for tensor in model.graph.initializer:
        del tensor.metadata_props[:]
        tensor.doc_string = ""
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]


def _name_dimensions(model: Any, sizes: Sequence[OpenSize]) -> None:
    """Give the exporter's symbols (s0, s77) the names that the recipe has for them."""
    shapes = {v.name: v.type.tensor_type.shape.dim for v in model.graph.input}
    names = {
        shapes[name][place].dim_param: size.name
        for size in sizes
        for name, place in size.inputs.items()
    }
    for value in (*model.graph.input, *model.graph.output):
        for dimension in value.type.tensor_type.shape.dim:
            if dimension.HasField("dim_param"):
                dimension.dim_param = re.sub(
                    r"\bs\d+\b", lambda found: names.get(found[0], "batch"), dimension.dim_param
                )


def _add_steps(model: Any, candidate: Candidate) -> None:
    """The steps that inputs go through before the file, under "edgekd.preprocess" as JSON."""
    steps = candidate.metadata.get("preprocess")
    if steps:
        text = json.dumps(steps, sort_keys=True, separators=(",", ":"))
        model.metadata_props.add(key="edgekd.preprocess", value=text)


def _pool_globally(model: Any) -> None:
    """Replace a mean over height and width with GlobalAveragePool, which has an integer kernel.

    Only of images (N, C, H, W): the same operator would average all but two dimensions of others.
    """
    import onnx

    described = (*model.graph.value_info, *model.graph.input)
    ranks = {value.name: len(value.type.tensor_type.shape.dim) for value in described}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type != "ReduceMean" or len(node.input) < 2:
            continue
        axes = constants.get(node.input[1])
        keep = next((a.i for a in node.attribute if a.name == "keepdims"), 1)
        if axes is None or not keep or ranks.get(node.input[0]) != 4:
            continue
        if sorted(onnx.numpy_helper.to_array(axes).tolist()) not in ([2, 3], [-2, -1]):
            continue
        node.op_type = "GlobalAveragePool"
        del node.input[1:]
        del node.attribute[:]
    used = {name for node in model.graph.node for name in node.input}
    unused = [tensor for tensor in model.graph.initializer if tensor.name not in used]
    for tensor in unused:
        model.graph.initializer.remove(tensor)


def write_onnx(model: Any, path: Path) -> None:
    """Check a model and write it to a temporary file that is renamed to `path`."""
    import onnx

    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise ToolError(f"the exported ONNX file is invalid: {error}", where=str(path)) from error
    write_beside(path, model.SerializeToString(deterministic=True))


def tensors_of(model: Any) -> tuple[tuple[TensorInfo, ...], tuple[TensorInfo, ...]]:
    """Inputs and outputs of an `onnx.ModelProto`, without initializers listed as inputs."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    return (
        tuple(_info(value, model, "in") for value in inputs),
        tuple(_info(value, model, "out") for value in model.graph.output),
    )


def _info(value: Any, model: Any, side: str) -> TensorInfo:
    """Shape with -1 for free sizes; for a float input or output that is quantized next to it, its
    scale and zero point."""
    import onnx

    kind = value.type.tensor_type
    shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in kind.shape.dim)
    op = "QuantizeLinear" if side == "in" else "DequantizeLinear"
    edges = [(n, (n.input if side == "in" else n.output)[0]) for n in model.graph.node if n.input]
    grid = next((n for n, name in edges if n.op_type == op and name == value.name), None)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scale = zero_point = None
    if grid is not None and grid.input[1] in constants:
        scale = float(onnx.numpy_helper.to_array(constants[grid.input[1]]))
        zero_point = int(onnx.numpy_helper.to_array(constants[grid.input[2]]))
    name = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).name
    return TensorInfo(name=value.name, shape=shape, dtype=name, scale=scale, zero_point=zero_point)


def _notes(
    candidate: Candidate,
    target: Target,
    stored: Sequence[Stored],
    islands: Sequence[tuple[str, str]],
) -> list[str]:
    notes = [_narrow_note(stored)] if stored else []
    if candidate.form == "int8":
        notes += _float_notes(candidate.module, islands)
    if candidate.form == "fp16" and target.hardware.architecture == "x86_64":
        notes.append(
            "ONNX Runtime computes fp16 in float32 on x86: the file is smaller, not faster"
        )
    return notes


def _float_notes(module: nn.Module, islands: Sequence[tuple[str, str]]) -> list[str]:
    """What the graph leaves in float and what ONNX Runtime has no integer kernel for, by layer, and
    the `islands` that its optimized graph computes in float, by operator."""
    names = [*float_islands(module), *functions_of_one_value(module)]
    pairs = [
        (kind, layer.strip("()")) for kind, _, layer in (name.partition(" ") for name in names)
    ]
    notes = [f"computed in float: {listed}" for listed in by_kind(pairs)]
    counts = Counter(op for op, _ in islands)
    if counts:
        listed = ", ".join(f"{number} {op}" for op, number in counts.most_common())
        notes.append(f"ONNX Runtime computes in float: {listed}")
    return notes


def _narrow_note(stored: Sequence[Stored]) -> str:
    """How weights are stored and computed; a file takes at least two bits for each."""
    kinds = dict.fromkeys(each.dtype for each in stored)
    counts = ", ".join(f"{k} {sum(each.dtype == k for each in stored)}" for k in kinds)
    bits = sum(each.bits for each in stored) / sum(each.value.numel() for each in stored)
    note = f"weights in the file: {counts} layers, {bits:.2f} bits each with their scales"
    if "binary" in kinds or "ternary" in kinds:
        note += "; ONNX has no type below 2 bits, so a binary or ternary weight takes 2"
    return f"{note}; computed in float, so convolutions widen their weights in every run"
