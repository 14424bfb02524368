"""What ONNX and TFLite files that are compressed alone have in common."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from edgekd.errors import EdgekdError, InputError
from edgekd.measure.diagnostics import Diagnostic, OfNetworks
from edgekd.report.values import ArtifactReport, StageReport
from edgekd.stages import Stage
from edgekd.stages.quantize import Quantize
from edgekd.training.teachers import Teacher
from edgekd.values.tree import Tree

NOT_COUNTED = "the layers of a file are not counted"


class BlackBox(nn.Module):
    """A teacher as a module, for code that only calls it; `reason` says why it is no network."""

    def __init__(self, teacher: Teacher, reason: str) -> None:
        super().__init__()
        self.teacher = teacher
        self.reason = reason

    def forward(self, x: Tree) -> Any:
        return self.teacher.logits(x)


def diagnostic_faults(asked: Mapping[str, Diagnostic], what: str) -> list[EdgekdError]:
    """A fault for each diagnostic that reads gradients or layers."""
    return [
        InputError(
            f"'{name}' reads a network's gradients or layers, which {what} does not have",
            where="report.diagnostics",
        )
        for name, diagnostic in asked.items()
        if isinstance(diagnostic, OfNetworks)
    ]


def training_faults(stages: Sequence[Stage], what: str, source: str = "") -> list[EdgekdError]:
    """A fault for each stage that would train or change the network; `source` is the model source
    that makes one from such files, if there is one."""
    faults: list[EdgekdError] = []
    for number, stage in enumerate(stages, 1):
        if stage.kind != "quantize" or number > 1:
            message = f"'{stage.kind}' needs a network to train"
        elif trains(stage):
            message = f"{what} alone is quantized without training"
        else:
            continue
        faults.append(
            InputError(
                message,
                where=f"stages.{number}",
                allowed='one stage: kind = "quantize", method = "calibrate"',
                hint=f"to train the network in the file, write [model] source = '{source}:FILE'"
                if source
                else "give [student] a network to train, with the file as its teacher",
            )
        )
    return faults


def trains(stage: Stage) -> bool:
    """Whether a `quantize` stage trains, at least as its last resort."""
    table = stage.model_dump()
    return table["method"] not in ("calibrate", "auto") or table["last_resort"] is not None


def key_faults(stages: Sequence[Stage], what: str, tool: str) -> list[EdgekdError]:
    """A fault for each key of a `quantize` stage that needs edgekd's own graph of the network,
    where `tool` quantizes the file itself."""
    faults: list[EdgekdError] = []
    for number, stage in enumerate(stages, 1):
        if not isinstance(stage, Quantize):
            continue
        given = [key for key in Quantize.chosen_by_auto if key != "mixed" and stage.is_set(key)]
        given += ["method"] if stage.method == "auto" else []
        faults += [
            InputError(
                f"{tool} quantizes {what} itself, without '{key}'",
                where=f"stages.{number}.{key}",
                hint=f"remove '{key}'" if key != "method" else 'method = "calibrate"',
            )
            for key in given
        ]
    return faults


def quantize_report(reports: Sequence[ArtifactReport], seconds: float) -> tuple[StageReport, ...]:
    """The report of the stage that quantized a file, if one did."""
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
