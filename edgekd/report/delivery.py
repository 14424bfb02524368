"""Which of a run's files are delivered: the verdict is about those, the others are shown."""

from collections.abc import Sequence

from edgekd.report.numbers import lead
from edgekd.report.only_size import only_size_counts
from edgekd.report.values import ArtifactReport, Report, TargetReport
from edgekd.values.artifact import BOXES
from edgekd.values.backend_lookup import backend_of

RECOMMENDED, ALL = "recommended", "all"
Deliver = str | Sequence[str]


def with_delivery(report: Report, deliver: Deliver) -> Report:
    """The report whose files know whether they are delivered: the recommended one of each target
    (the fastest that holds every budget, of those that find boxes by themselves where there are
    any), all, or those of some backends. Of several precisions of a format only the chosen one is
    delivered."""
    targets = tuple(
        target.model_copy(update={"artifacts": _marked(report, target, deliver)})
        for target in report.targets
    )
    return report.model_copy(update={"targets": targets})


def _marked(report: Report, target: TargetReport, deliver: Deliver) -> tuple[ArtifactReport, ...]:
    named = _delivered(report, target, deliver)
    return tuple(
        each.model_copy(update={"delivered": any(each is one for one in named)})
        for each in target.artifacts
    )


def _delivered(
    report: Report, target: TargetReport, deliver: Deliver
) -> Sequence[ArtifactReport | None]:
    files = target.chosen
    if deliver == ALL:
        return files
    if deliver == RECOMMENDED:
        asked = [each for each in files if BOXES in each.facts] or files
        run = [each for each in asked if not only_size_counts(each, asked)] or asked
        return [lead(report, target.model_copy(update={"artifacts": tuple(run)}))]
    return [each for each in files if backend_of(each.format) in deliver] or files


def delivered(target: TargetReport) -> list[ArtifactReport]:
    """The files that a target's verdict is about: those delivered, and the teacher's own, without
    which nothing can be compared."""
    files = [each for each in target.artifacts if each.delivered]
    return [*files, *([target.baseline] if target.baseline else [])]
