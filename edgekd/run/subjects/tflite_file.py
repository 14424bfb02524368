"""A TFLite file alone: quantized without training, checked and measured as a file.

Its recipe has `[model] tflite = "..."`, no student, and either no stage or one `quantize` stage
with `method = "calibrate"`: int8, int4 weights, or fp16 weights.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from edgekd.data.inputs import sha256_of_tensors
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError, InputError
from edgekd.formats.graph import info_of
from edgekd.formats.tflite import read_tflite
from edgekd.measure.diagnostics import Diagnostic
from edgekd.quant.tflite_calibration import quantize_tflite, tflite_file_fault
from edgekd.report.values import ArtifactReport, Layers, StageReport
from edgekd.run.compiled import Compiled, cached
from edgekd.run.plan.checks import check_comparable
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget, TargetFiles
from edgekd.run.plan.targets import budgets_of
from edgekd.run.precisions import named
from edgekd.run.subjects.finished_file import (
    BlackBox,
    diagnostic_faults,
    key_faults,
    quantize_report,
    training_faults,
)
from edgekd.stages import Progress, Stage
from edgekd.store import key_of, write_beside
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.layout import inputs_for
from edgekd.values.artifact import Artifact, Precision, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Recipe
from edgekd.values.target import Target
from edgekd.values.tree import Tree, leaves, rows

REASON = "a TFLite file has no counterpart in PyTorch"


class TfliteFileSubject:
    """A finished file, which can only be quantized."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """The file as a module for inference only."""
        return Candidate(BlackBox(original, REASON), data.example) if original else None

    def summary(self, start: Candidate) -> str:
        """The summary of a file."""
        return "a TFLite file, for the tflite backend only"

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """A fault for each diagnostic that reads gradients or layers."""
        return diagnostic_faults(asked, "a TFLite file")

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """The plan: at most one quantization without training, and nothing to compile."""
        collect.faults.extend(training_faults(stages, "a TFLite file"))
        collect.faults.extend(key_faults(stages, "a TFLite file", "ai-edge-quantizer"))
        if "tflite" not in target.backends:
            collect.faults.append(
                InputError(
                    "a TFLite file needs the tflite backend",
                    where=f"target {target.name}",
                    allowed="a target with [backends.tflite]",
                    hint="run 'edgekd targets' to see each target's backends",
                )
            )
        planned = []
        for number, stage in enumerate(stages, 1):
            dtypes = _dtypes_of(stage)
            faults = [tflite_file_fault(_path_of(plan), one, f"stages.{number}") for one in dtypes]
            collect.faults.extend(next(([fault] for fault in faults if fault), []))
            cost = f"quantize the file to {' and to '.join(dtypes)} by ai-edge-quantizer"
            planned.append(PlannedStage(stage.kind, stage, "", cost, False))
        check_comparable(plan.request, target, stages, collect)
        return PlannedTarget(target, tuple(planned), {}, budgets_of(plan.request, target))

    def make(self, plan: Plan, planned: PlannedTarget, progress: Progress) -> TargetFiles:
        """The original file, and the quantized one (the same file if there is no stage)."""
        target = planned.target
        baseline = Compiled(_original(plan, target, ""), None)
        if not planned.stages:
            return TargetFiles((baseline,), baseline)
        dtypes = _dtypes_of(planned.stages[0].stage)
        several = len(dtypes) > 1
        files = [
            Compiled(
                _quantized(plan, target, dtype, dtype if several else ""),
                None,
                original=baseline.artifact,
                is_compared=several,
            )
            for dtype in dtypes
        ]
        if several:
            files.append(Compiled(_original(plan, target, "fp32"), None, is_compared=True))
        return TargetFiles(tuple(files), baseline)

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """The quantization."""
        return quantize_report(reports, seconds)

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """No costs: the layers of a file are not counted."""
        return Layers()


def _dtypes_of(stage: Stage) -> tuple[Precision, ...]:
    """What a stage quantizes to: two types to be compared with float, or one."""
    dtype: Any = stage.model_dump().get("dtype", "")
    return ("int8", "fp16") if dtype == "auto" else (dtype,)


def _original(plan: Plan, target: Target, name: str) -> Artifact:
    """The file as it is, called after its precision if there is a name."""
    path, example = _path_of(plan), plan.data.example

    def copied(folder: Path) -> list[Artifact]:
        shutil.copyfile(path, folder / "model.tflite")
        return named([_artifact(folder / "model.tflite", target, example, "fp32", ())], name)

    parts = [plan.original.key, target.model_dump(mode="json"), name]
    return cached(plan.store, "tflite", key_of("original", *parts), copied)[0]


def _quantized(plan: Plan, target: Target, dtype: Precision, name: str) -> Artifact:
    """The file in another type, called after it if there is a name."""
    path, samples = _path_of(plan), plan.calibration

    def quantized(folder: Path) -> list[Artifact]:
        content = quantize_tflite(path, _arrays(path, samples), dtype)
        made = folder / "model.tflite"
        write_beside(made, content)
        line = f"quantize: {dtype} by ai-edge-quantizer on {len(leaves(samples)[0])} samples"
        return named([_artifact(made, target, plan.data.example, dtype, (line,))], name)

    parts = [plan.original.key, target.model_dump(mode="json"), dtype, name, plan.data.sha256]
    key = key_of("quantized", *parts, sha256_of_tensors(samples))
    return cached(plan.store, "tflite", key, quantized)[0]


def _path_of(plan: Plan) -> Path:
    return plan.request.recipe.folder / str(plan.request.recipe.model.tflite)


def _arrays(path: Path, samples: Tree) -> list[list[np.ndarray]]:
    """Each sample as the file's inputs, with a batch of one, laid out as the file wants them."""
    graph = read_tflite(path)
    wanted = {
        graph.tensors[key].name: [None if size < 0 else size for size in shape[1:]]
        for key in graph.inputs
        for shape in [graph.tensors[key].shape or ()]
    }
    arrange = inputs_for(wanted, samples, str(path))
    kinds = [np.dtype(graph.tensors[key].dtype) for key in graph.inputs]
    count = len(leaves(samples)[0])
    return [
        [
            value.numpy().astype(kind)
            for value, kind in zip(arrange(rows(samples, slice(n, n + 1))), kinds, strict=True)
        ]
        for n in range(count)
    ]


def _artifact(
    path: Path, target: Target, example: Tree, precision: Precision, lineage: tuple[str, ...]
) -> Artifact:
    graph = read_tflite(path)
    inputs = tuple(info_of(graph.tensors[key]) for key in graph.inputs)
    facts: dict[str, Any] = {"input_layout": _layout(inputs, example)}
    return Artifact(
        path=path,
        format="tflite",
        runtime="litert",
        precision=precision,
        target=target.name,
        sha256=sha256_of(path),
        bytes=path.stat().st_size,
        inputs=inputs,
        outputs=tuple(info_of(graph.tensors[key]) for key in graph.outputs),
        lineage=lineage,
        facts=facts,
    )


def _layout(inputs: Sequence[Any], example: Tree) -> str:
    """Channels last where an image of the samples (N, C, H, W) only fits so."""
    for info, tensor in zip(inputs, leaves(example), strict=False):
        shape = tuple(tensor.shape[1:])
        if len(shape) == 3 and tuple(info.shape[1:]) == (*shape[1:], shape[0]) != shape:
            return "NHWC"
    return "NCHW"
