"""The results of a run, shown in the terminal, in report.json and in report.html."""

# code-key: presents

from edgekd.report.values import (
    ArtifactReport,
    Dataset,
    LayerCost,
    Layers,
    Report,
    StageReport,
    TargetReport,
    TeacherReport,
)

__all__ = [
    "ArtifactReport",
    "Dataset",
    "LayerCost",
    "Layers",
    "Report",
    "StageReport",
    "TargetReport",
    "TeacherReport",
]
