"""Which files only budgets of size apply to."""

# code-key: measures

from collections.abc import Sequence

from edgekd.report.values import ArtifactReport
from edgekd.values.backend_lookup import kind_of, not_run


def only_size_counts(report: ArtifactReport, reports: Sequence[ArtifactReport]) -> bool:
    """Whether only budgets of size apply to a file: it is stored, or another file is run in its
    place, as an engine is instead of the ONNX file that it is built from."""
    kind = kind_of(report.format)
    if kind is None or not kind.not_run:
        return False
    return kind.stored or any(
        other.runtime == report.runtime and not not_run(other.format) for other in reports
    )
