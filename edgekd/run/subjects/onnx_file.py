"""An ONNX file without a PyTorch network: it is calibrated, checked and measured as a file.

Its recipe has `[model] onnx = "..."`, no student, and either no stage or one `quantize` stage with
`method = "calibrate"`.
"""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edgekd.backends.onnx import Onnx
from edgekd.backends.onnx.export import tensors_of, write_onnx
from edgekd.data.inputs import sha256_of_tensors
from edgekd.data.samples import Data
from edgekd.errors import Collector, EdgekdError, InputError
from edgekd.formats.onnx_file import external_files, read_onnx
from edgekd.measure.diagnostics import Diagnostic, OfNetworks
from edgekd.report.values import ArtifactReport, Layers, StageReport
from edgekd.run.compiled import Compiled, cached
from edgekd.run.plan.planned import Plan, PlannedStage, PlannedTarget, TargetFiles
from edgekd.run.plan.targets import budgets_of
from edgekd.stages import Progress, Stage
from edgekd.store import key_of
from edgekd.training.teachers import Teacher
from edgekd.values.artifact import Artifact, sha256_of
from edgekd.values.candidate import Candidate
from edgekd.values.recipe import Recipe
from edgekd.values.target import Target
from edgekd.values.tree import Tree

NOT_COUNTED = "the layers of an ONNX file are not counted"


class OnnxFileSubject:
    """A finished file, which can only be calibrated."""

    def start(self, recipe: Recipe, data: Data, original: Teacher | None) -> Candidate | None:
        """The file as a module for inference only."""
        return Candidate(BlackBox(original), data.example) if original else None

    def summary(self, start: Candidate) -> str:
        """The summary of a file."""
        return "an ONNX file"

    def diagnostic_faults(self, asked: Mapping[str, Diagnostic]) -> list[EdgekdError]:
        """A fault for each diagnostic that reads gradients or layers."""
        return [
            InputError(
                f"'{name}' reads a network's gradients or layers, which an ONNX file does not have",
                where="report.diagnostics",
            )
            for name, diagnostic in asked.items()
            if isinstance(diagnostic, OfNetworks)
        ]

    def plan_target(
        self, plan: Plan, target: Target, stages: Sequence[Stage], collect: Collector
    ) -> PlannedTarget:
        """The plan: at most one calibration, and nothing to compile."""
        collect.faults.extend(_faults(stages, target))
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
        if not planned.stages:
            return TargetFiles((baseline,), baseline)
        (stage,) = (each.stage for each in planned.stages)
        table = stage.model_dump(mode="json")
        samples = plan.calibration
        key = key_of("calibrated", *parts, [table], plan.data.sha256, sha256_of_tensors(samples))
        corrected: bool = table["bias_correction"]
        after = cached(
            plan.store,
            "onnx",
            key,
            lambda folder: _calibrated(path, target, samples, corrected, folder),
        )
        return TargetFiles(tuple(Compiled(artifact, None) for artifact in after), baseline)

    def stage_reports(
        self, made: TargetFiles, reports: Sequence[ArtifactReport], seconds: float
    ) -> tuple[StageReport, ...]:
        """The calibration stage."""
        report = reports[0]
        if not report.lineage:
            return ()
        reasons = {"parameters": NOT_COUNTED, "macs": NOT_COUNTED}
        if report.accuracy is None:
            reasons["accuracy"] = "not run"
        return (
            StageReport(
                kind="quantize",
                cached=False,
                seconds=round(seconds, 2),
                accuracy=report.accuracy,
                accuracy_ci=report.accuracy_ci,
                parameters=None,
                macs=None,
                bytes=report.bytes,
                line=report.lineage[-1],
                reasons=reasons,
            ),
        )

    def layers(self, plan: Plan, made: TargetFiles) -> Layers:
        """No costs: the layers of a file are not counted."""
        return Layers()


class BlackBox(nn.Module):
    """A teacher as a module, for code that only calls it."""

    def __init__(self, teacher: Teacher) -> None:
        super().__init__()
        self.teacher = teacher

    def forward(self, x: Tree) -> Any:
        return self.teacher.logits(x)


def _faults(stages: Sequence[Stage], target: Target) -> list[EdgekdError]:
    """Faults: stages that need a network, and targets without the onnx backend."""
    faults: list[EdgekdError] = []
    for number, stage in enumerate(stages, 1):
        table = stage.model_dump()
        if stage.kind != "quantize" or number > 1:
            faults.append(_fault(number, f"'{stage.kind}' needs a network to train"))
        elif (table["dtype"], table["method"]) != ("int8", "calibrate"):
            faults.append(_fault(number, "an ONNX file can only be calibrated to int8"))
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


def _fault(number: int, message: str) -> InputError:
    return InputError(
        message,
        where=f"stages.{number}",
        allowed='one stage: kind = "quantize", method = "calibrate"',
        hint="give [student] a factory to train",
    )


def _copied(path: Path, target: Target, folder: Path) -> list[Artifact]:
    import onnx

    copy = folder / "model.onnx"
    shutil.copyfile(path, copy)
    for data in external_files(path):
        place = folder / data.relative_to(path.parent)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(data, place)
    return [_artifact(copy, onnx.load(path), target, ())]


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
