"""Converts a candidate to TFLite with litert-torch.

The converter imports JAX, prints a lot, and its compiled part can end the process, so it runs in a
process of its own with a time limit.
"""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
from torch import fx

from edgekd.backends.tflite.embeddings import with_integer_tables
from edgekd.backends.tflite.even_ranks import with_even_ranks
from edgekd.backends.tflite.lookups import has_no_kernel, insert_tables
from edgekd.backends.tflite.wide import with_wide_layers
from edgekd.errors import ToolError
from edgekd.firmware.arena import measure_arena
from edgekd.formats.graph import Graph, float_islands, info_of
from edgekd.formats.integers_only import refuse_floats
from edgekd.formats.operator_notes import by_layer, converted_layer
from edgekd.formats.tflite import read_tflite
from edgekd.formats.tflite_metadata import with_metadata, with_names
from edgekd.processes.forked import run_module
from edgekd.quant.export import export_graph, exported
from edgekd.quant.inspection import integer_precision
from edgekd.quant.rounded_up_pools import pad_rounded_up
from edgekd.quant.tables import Table, product, with_tables
from edgekd.quant.unfolding import convolve_columns, unfolded
from edgekd.store import write_beside
from edgekd.values.artifact import Artifact, OpPlacement, Precision, in_float_fact, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.measurement import Measurement
from edgekd.values.target import Target
from edgekd.values.tree import leaf_names, leaves

CONVERTER = "edgekd.quant.litert"
TIME_LIMIT_S = 900


def convert_artifact(
    candidate: Candidate, target: Target, placements: Sequence[OpPlacement], path: Path
) -> Artifact:
    """Write the candidate to `path`, for a batch of one; images are taken as (1, H, W, C)."""
    convert(candidate, path)
    _name_ends(candidate, path)
    if candidate.metadata:
        write_beside(path, with_metadata(path.read_bytes(), candidate.metadata))
    graph = read_tflite(path)
    if candidate.integers_only:
        refuse_floats(_islands(graph), path)
    precision = _precision(candidate)
    floating = len(_islands(graph)) if candidate.form == "int8" else 0
    floats = [leaf for leaf in leaves(candidate.example) if leaf.dtype != torch.uint8]
    images = any(leaf.dim() == 4 for leaf in floats)  # images of bytes have channels last already
    return Artifact(
        path=path,
        format="tflite",
        runtime="litert",
        precision=precision,
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=tuple(info_of(graph.tensors[key]) for key in graph.inputs),
        outputs=tuple(info_of(graph.tensors[key]) for key in graph.outputs),
        placements=tuple(placements),
        versions=_versions(),
        lineage=candidate.lineage,
        notes=tuple(leftovers(graph, candidate)),
        facts={"input_layout": "NHWC" if images else "NCHW"} | in_float_fact(floating),
        measurements=_micro_arena(path, target, precision),
    )


def _precision(candidate: Candidate) -> Precision:
    if candidate.form == "int8":
        return integer_precision(candidate.module)
    return "fp16" if candidate.form == "fp16" else "fp32"


def _name_ends(candidate: Candidate, path: Path) -> None:
    """Name the file's inputs and outputs as the network's, where there are several."""
    with torch.no_grad():
        outputs = candidate.module(candidate.example)
    inputs, results = leaf_names(candidate.example), leaf_names(outputs, "output")
    if max(len(inputs), len(results)) > 1:
        write_beside(path, with_names(path.read_bytes(), inputs, results))


def _micro_arena(path: Path, target: Target, precision: Precision) -> tuple[Measurement, ...]:
    """The arena, where the target is a microcontroller; those run no fp16 files."""
    if target.hardware.architecture != "thumb" or precision == "fp16":
        return ()
    return (measure_arena(path),)


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    names = ("torch", "litert-torch", "litert-converter", "ai-edge-litert")
    return {name: version(name) for name in names}


def convert(candidate: Candidate, path: Path) -> None:
    """Hand the graph to the converter's process as a .pt2 file, and take the file it made."""
    tables: list[Table] = []
    if candidate.form == "int8":
        whole = cast(fx.GraphModule, candidate.module)
        marked, tables = with_tables(whole, has_no_kernel, product)
        graph = unfolded(marked)
    else:
        graph = export_graph(candidate.module, candidate.example, "backends.tflite")
        convolve_columns(graph)
    pad_rounded_up(graph)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".tflite-") as folder:
        program, made = Path(folder) / "graph.pt2", Path(folder) / "model.tflite"
        torch.export.save(exported(graph, candidate.example, fixed=True), program)
        arguments = [str(program), str(made), candidate.form]
        done = run_module(CONVERTER, arguments, TIME_LIMIT_S, "litert-torch", str(path))
        done.require_success("litert-torch", str(path))
        if not made.exists():
            raise ToolError("litert-torch ended without writing a file", where=str(path))
        content = with_wide_layers(with_integer_tables(made.read_bytes()))
        write_beside(made, with_even_ranks(content))
        if tables:
            write_beside(made, insert_tables(made.read_bytes(), tables))
        made.replace(path)


def leftovers(graph: Graph, candidate: Candidate) -> list[str]:
    """What the user should know about the file: float islands, transposes, where fp16 ends."""
    notes = []
    if candidate.form == "int8":
        notes += [f"computed in float: {listed}" for listed in by_layer(_islands(graph))]
        edges = [*graph.inputs, *graph.outputs]
        notes += [f"float at the edge: {key}" for key in edges if _is_float(graph, key)]
    transposes = [converted_layer(op.name) for op in graph.ops if op.op == "TRANSPOSE"]
    if transposes:
        near = ", ".join(dict.fromkeys(layer for layer in transposes if layer))
        remain = (
            "1 transpose remains"
            if len(transposes) == 1
            else f"{len(transposes)} transposes remain"
        )
        notes.append(remain + (f" ({near})" if near else ""))
    if candidate.form == "fp16":
        notes.append("weights are stored in fp16; LiteRT on a CPU computes in float32")
    return notes


def _islands(graph: Graph) -> list[tuple[str, str]]:
    """The kind and the layer of each operator in float."""
    return [(op.op, converted_layer(op.name)) for op in float_islands(graph)]


def _is_float(graph: Graph, key: str) -> bool:
    return bool(key) and graph.tensors[key].dtype.startswith("float")
