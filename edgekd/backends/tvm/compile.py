"""Compiles a candidate with TVM into one shared library."""

import copy
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
from torch import fx, nn

from edgekd.backends.tvm import cache, cuda
from edgekd.backends.tvm.integers.reading import in_float
from edgekd.backends.tvm.isa import (
    cuda_target,
    dot_of,
    has_half,
    host_runs,
    isa_of,
    llvm_target,
    needed_features,
)
from edgekd.backends.tvm.job import Job
from edgekd.backends.tvm.options import TvmOptions
from edgekd.backends.tvm.tools import linker_of
from edgekd.errors import InputError
from edgekd.formats.operator_notes import by_kind
from edgekd.quant.export import export_graph, exported
from edgekd.quant.rewrite import as_uint8
from edgekd.quant.support import place
from edgekd.store import file_beside
from edgekd.values.artifact import (
    Artifact,
    OpPlacement,
    Placement,
    Precision,
    TensorInfo,
    in_float_fact,
    sha256_of,
)
from edgekd.values.candidate import Candidate
from edgekd.values.tables import parse
from edgekd.values.target import Target

WHERE = "backends.tvm"
LIBRARY = "model.so"
UNCOVERED = "no schedule covers the kernel {name}, which makes it about 100 times slower on a CPU"

GENERAL = "the layer kernel {name} has only the general schedule, without a register tile"


IN_FLOAT = "computed in float: it has no integer kernel here"


def check(candidate: Candidate, target: Target, options: dict[str, Any]) -> tuple[OpPlacement, ...]:
    """Every operator on one unit, once the tools that build for it are found.

    Raises `InputError` for an operator that the target can't run or a tool that is not installed.
    """
    chosen = parse(TvmOptions, options, f"target {target.name}: {WHERE}")
    _job(candidate, target, chosen)
    if chosen.strict:
        _refuse_float(candidate, target)
    linker_of(target.hardware.architecture)
    if chosen.kind == "cuda":
        cuda.refuse_without_tools()
    unit: Placement = "gpu" if chosen.kind == "cuda" else "cpu"
    placements = place(candidate, target, unit, WHERE)
    left = {(layer, op) for op, layer in _in_float(candidate)}
    return tuple(
        each.model_copy(update={"reason": IN_FLOAT}) if (each.name, each.op) in left else each
        for each in placements
    )


def compile_artifact(
    candidate: Candidate, target: Target, options: dict[str, Any], folder: Path
) -> Artifact:
    """`model.so` in `folder`; out of the cache when the same program was compiled before."""
    placements = check(candidate, target, options)
    chosen = parse(TvmOptions, options, f"target {target.name}: {WHERE}")
    built, _ = cache.library(
        _program(candidate, target),
        _job(candidate, target, chosen),
        chosen.time_limit_seconds,
        Path(chosen.cache) if chosen.cache else cache.default_folder(),
    )
    path = folder / LIBRARY
    with file_beside(path) as beside:
        shutil.copyfile(built.library, beside)
    precision: Precision = candidate.form if candidate.form in ("fp16", "int8") else "fp32"
    return Artifact(
        path=path,
        format="tvm-so",
        runtime="tvm",
        precision=precision,
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=_infos("input", built.result["inputs"]),
        outputs=_infos("output", built.result["outputs"]),
        placements=placements,
        versions=cache.versions(),
        lineage=candidate.lineage,
        notes=tuple(_notes(candidate, target, chosen, built.result)),
        facts={
            "input_layout": "NCHW",
            "planned_memory_bytes": built.result["planned_bytes"],
            "planned_memory_kind": "estimated",
        }
        | in_float_fact(len(_in_float(candidate))),
    )


def _job(candidate: Candidate, target: Target, options: TvmOptions) -> Job:
    hardware = target.hardware
    integer = candidate.form == "int8"
    if integer and options.kind == "cuda":
        raise InputError(
            "TVM's GPU kernels here compute in float alone",
            where=f"target {target.name}: {WHERE}",
            allowed="float and fp16 candidates",
            hint="leave tvm out of the backends, or quantize after compiling with it",
        )
    timed = options.kind == "llvm" and host_runs(hardware)
    return Job(
        target=(cuda_target if options.kind == "cuda" else llvm_target)(hardware, options),
        isa=asdict(isa_of(hardware)),
        architecture=hardware.architecture,
        precision=candidate.form,
        grid_seconds=options.grid_seconds if timed else 0.0,
        tune_seconds=options.tune_seconds if timed else 0.0,
        dot=dot_of(hardware) if integer else "",
        features=needed_features(hardware),
    )


def _in_float(candidate: Candidate) -> list[tuple[str, str]]:
    """(kind, layer) of the operators of a quantized graph that stay in float."""
    return in_float(cast(fx.GraphModule, candidate.module)) if candidate.form == "int8" else []


def _refuse_float(candidate: Candidate, target: Target) -> None:
    left = _in_float(candidate)
    if left:
        raise InputError(
            f"without an integer kernel: {', '.join(by_kind(left))}",
            where=f"target {target.name}: {WHERE}.strict",
            hint="strict = false computes these in float and names them in the notes",
        )


def _program(candidate: Candidate, target: Target) -> torch.export.ExportedProgram:
    """The model for one sample, batch norms folded; a quantized one with the type of activations
    that the processor's dot product takes."""
    graph: nn.Module
    if candidate.form == "int8":
        quantized = cast(fx.GraphModule, candidate.module)
        unsigned = target.hardware.architecture == "x86_64"
        graph = as_uint8(quantized) if unsigned else quantized
    else:
        module: nn.Module = copy.deepcopy(candidate.module)
        graph = export_graph(module, candidate.example, WHERE)
    return exported(graph, candidate.example, fixed=True)


def _infos(name: str, tensors: list[dict[str, Any]]) -> tuple[TensorInfo, ...]:
    return tuple(
        TensorInfo(name=f"{name}{index or ''}", shape=tuple(info["shape"]), dtype=info["dtype"])
        for index, info in enumerate(tensors)
    )


def _notes(
    candidate: Candidate, target: Target, options: TvmOptions, result: dict[str, Any]
) -> list[str]:
    notes = [f"computed in float: {listed}" for listed in by_kind(_in_float(candidate))]
    notes += [UNCOVERED.format(name=name) for name in result["uncovered"]]
    notes += [GENERAL.format(name=name) for name in result["general"]]
    if options.kind == "cuda":
        notes.append("GPU kernels use TVM's default schedules without tuning")
    elif candidate.form == "fp16" and not has_half(target.hardware):
        notes.append("this processor has no half-precision arithmetic: fp16 saves space, not time")
    return notes
