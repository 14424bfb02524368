"""An ONNX file alone: quantized without training, compiled, checked and measured.

Its recipe has `[model] onnx = "..."`, no student, and either no stage or one `quantize` stage with
`method = "calibrate"`. A file whose operators all have counterparts in PyTorch is converted and
goes the way of a network: any data type, and every backend of the target. Any other file stays an
ONNX file, which NNCF calibrates to int8.
"""

import shutil
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.backends.onnx import Onnx
from edgekd.backends.onnx.export import tensors_of, write_onnx
from edgekd.data.inputs import sha256_of_tensors
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError, InputError, first_line
from edgekd.formats.onnx_file import external_files, read_onnx
from edgekd.measure.diagnostics import Diagnostic
from edgekd.network.cost import totals
from edgekd.network.onnx_module.convert import module_of_onnx
from edgekd.quant.export import export_graph
from edgekd.report.values import ArtifactReport, Layers, StageReport
from edgekd.run.compiled import Compiled, cached
from edgekd.run.compiling import compile_candidate
from edgekd.run.pipeline import run_stages
from edgekd.run.plan.checks import check_comparable
from edgekd.run.plan.keys import start_key
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget, TargetFiles
from edgekd.run.plan.targets import budgets_of, planned_target
from edgekd.run.precisions import named
from edgekd.run.subjects.finished_file import (
    BlackBox,
    diagnostic_faults,
    key_faults,
    quantize_report,
    training_faults,
)
from edgekd.run.subjects.network import cost_rows
from edgekd.stages import Progress, Stage
from edgekd.store import key_of
from edgekd.training.teachers import Teacher
from edgekd.training.teachers.black_box import BlackBox as Opaque
from edgekd.training.teachers.outputs import PROBE
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Recipe
from edgekd.values.target import Target
from edgekd.values.tree import leaves

SAME = 1e-3
"""How far the network may differ from the file, relative to the largest output."""


class OnnxFileSubject:
    """A finished file, which can only be calibrated."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """The file as a PyTorch network, or else as a module for inference only."""
        if original is None:
            return None
        path = recipe.folder / str(recipe.model.onnx)
        try:
            module = converted_file(path, original, data)
        except InputError as error:
            return Candidate(BlackBox(original, error.message), data.example)
        return Candidate(module, data.example)

    def summary(self, start: Candidate) -> str:
        """Whether the file became a network, and why not."""
        if isinstance(start.module, BlackBox):
            return f"an ONNX file, for the onnx backend only: {start.module.reason}"
        cost = totals(start.module, start.example)
        return f"an ONNX file as a PyTorch network, {cost.parameters:,} parameters"

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """A fault for each diagnostic that reads gradients or layers."""
        return diagnostic_faults(asked, "an ONNX file")

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """The plan: at most one quantization without training."""
        collect.faults.extend(training_faults(stages, "an ONNX file", "onnx"))
        if not isinstance(plan.start.module, BlackBox):
            return planned_target(plan, target, stages, collect)
        collect.faults.extend(_faults(stages, target, plan.start.module.reason))
        check_comparable(plan.request, target, stages, collect)
        cost = f"calibrate the file on {len(plan.calibration)} samples"
        planned = tuple(PlannedStage(stage.kind, stage, "", cost, False) for stage in stages)
        return PlannedTarget(target, planned, {}, budgets_of(plan.request, target))

    def make(self, plan: Plan, planned: PlannedTarget, progress: Progress) -> TargetFiles:
        """The original file, and the calibrated one (the same file if there is no stage)."""
        path = plan.request.recipe.folder / str(plan.request.recipe.model.onnx)
        target = planned.target
        parts = [plan.original.key, target.model_dump(mode="json")]
        key = key_of("original", *parts)
        before = cached(plan.store, "onnx", key, lambda folder: _copied(path, target, folder))
        baseline = Compiled(before[0], None)
        if not isinstance(plan.start.module, BlackBox):
            return _network_files(plan, planned, baseline, progress)
        if not planned.stages:
            return TargetFiles((baseline,), baseline)
        (stage,) = (each.stage for each in planned.stages)
        table = stage.model_dump(mode="json")
        samples, several = plan.calibration, table["dtype"] == "auto"
        key = key_of("calibrated", *parts, [table], plan.data.sha256, sha256_of_tensors(samples))
        corrected: bool = table["bias_correction"]
        after = cached(
            plan.store,
            "onnx",
            key,
            lambda folder: named(
                _calibrated(path, target, samples, corrected, folder), "int8" * several
            ),
        )
        files = [
            Compiled(artifact, None, original=baseline.artifact, is_compared=several)
            for artifact in after
        ]
        if several:
            key = key_of("original", *parts, "fp32")
            make = partial(_copied, path, target, name="fp32")
            (copy,) = cached(plan.store, "onnx", key, make)
            files.append(Compiled(copy, None, is_compared=True))
        return TargetFiles(tuple(files), baseline)

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """The stage as the pipeline reported it, or else the calibration."""
        if made.network is not None:
            return made.stages
        return quantize_report(reports, seconds)

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """The costs of the layers; those of a file that is not a network are not counted."""
        if made.network is None:
            return Layers()
        start = plan.start
        return Layers(
            before=cost_rows(start.module, start.example),
            after=cost_rows(made.network.module, start.example),
        )


def converted_file(path: Path, original: Teacher, data: Data) -> nn.Module:
    """The file as a network that gives what ONNX Runtime does for some training samples, and that
    can be exported for any batch size. Raises `InputError` with the reason if there is none."""
    module = module_of_onnx(path)
    probe = data.train.first(PROBE).shown
    try:
        with torch.no_grad():
            found = leaves(module(probe))
            export_graph(module, data.example, "model")
    except (EdgekdError, RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InputError(f"its network fails: {first_line(error)}", where=str(path)) from None
    raw = leaves(original.predict(probe)) if isinstance(original, Opaque) else []
    for expected, value in zip(raw, found, strict=bool(raw)):
        _refuse_difference(expected.float(), value.float(), path)
    return module


def _refuse_difference(expected: torch.Tensor, found: torch.Tensor, path: Path) -> None:
    most = float(expected.abs().max()) or 1.0
    if expected.shape != found.shape or not torch.isfinite(found).all():
        message = f"its network gives {tuple(found.shape)}, the file {tuple(expected.shape)}"
        raise InputError(message, where=str(path))
    difference = float((expected - found).abs().max()) / most
    if difference > SAME:
        raise InputError(f"its network differs from it by {difference:.1g}", where=str(path))


def _network_files(
    plan: Plan, planned: PlannedTarget, baseline: Compiled, progress: Progress
) -> TargetFiles:
    """The files of every backend. Without a stage, the ONNX file is the original itself."""
    staged = run_stages(plan, planned, progress, start_key(plan))
    made = compile_candidate(plan, planned, staged, progress)
    files = [
        Compiled(baseline.artifact, file.reference)
        if file.artifact.format == "onnx" and not planned.stages
        else file
        for file in made.files
    ]
    return TargetFiles(tuple(files), baseline, staged.floating, staged.reports, made.failures)


def _faults(stages: Sequence[Stage], target: Target, reason: str) -> list[EdgekdError]:
    """The faults of a file that is no network: other types than int8, and targets without the onnx
    backend."""
    faults = key_faults(stages, "this ONNX file", "NNCF")
    for number, stage in enumerate(stages, 1):
        table = stage.model_dump()
        if stage.kind == "quantize" and (table["dtype"] not in ("int8", "auto") or table["mixed"]):
            faults.append(
                InputError(
                    f"this ONNX file can only be calibrated to int8: {reason}",
                    where=f"stages.{number}",
                    allowed='dtype = "int8" or "auto", which compares it with the file itself',
                )
            )
    if "onnx" not in target.backends:
        faults.append(
            InputError(
                "an ONNX file needs the onnx backend",
                where=f"target {target.name}",
                allowed="a target with [backends.onnx]",
                hint="run 'edgekd targets' to see each target's backends",
            )
        )
    return [*faults, *Onnx().missing()]


def _copied(path: Path, target: Target, folder: Path, name: str = "") -> list[Artifact]:
    import onnx

    copy = folder / "model.onnx"
    shutil.copyfile(path, copy)
    for data in external_files(path):
        place = folder / data.relative_to(path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, place)
    return named([_artifact(copy, onnx.load(path), target, ())], name)


def _calibrated(
    path: Path, target: Target, samples: torch.Tensor, corrected: bool, folder: Path
) -> list[Artifact]:
    from edgekd.quant.onnx_calibration import calibrate_onnx

    model = calibrate_onnx(path, samples, target.quantization, bias_correction=corrected)
    write_onnx(model, folder / "model.onnx")
    line = f"quantize: int8 by NNCF on {len(samples)} samples"
    return [_artifact(folder / "model.onnx", model, target, (line,))]


def _artifact(path: Path, model: Any, target: Target, lineage: tuple[str, ...]) -> Artifact:
    inputs, outputs = tensors_of(model)
    external = {file.relative_to(path.parent).as_posix(): file for file in external_files(path)}
    return Artifact(
        path=path,
        format="onnx",
        runtime="onnxruntime",
        precision="int8" if "QuantizeLinear" in read_onnx(path).counts else "fp32",
        target=target.name,
        sha256=sha256_of(path),
        bytes=sum(file.stat().st_size for file in (path, *external.values())),
        companions={name: sha256_of(file) for name, file in external.items()},
        inputs=inputs,
        outputs=outputs,
        lineage=lineage,
        facts={"input_layout": "NCHW"},
    )
