"""Which of a run's files are delivered: the verdict is about those, the others are shown."""

from collections.abc import Sequence

from edgekd.report.numbers import lead
from edgekd.report.only_size import only_size_counts
from edgekd.report.values import ArtifactReport, Report, TargetReport
from edgekd.values.backend_lookup import backend_of

RECOMMENDED, ALL = "recommended", "all"
Deliver = str | Sequence[str]


def with_delivery(report: Report, deliver: Deliver) -> Report:
    """The report whose files know whether they are delivered: the recommended one of each target
    (the fastest that holds every budget), all, or those of some backends."""
    targets = tuple(
        target.model_copy(update={"artifacts": _marked(report, target, deliver)})
        for target in report.targets
    )
    return report.model_copy(update={"targets": targets})


def _marked(report: Report, target: TargetReport, deliver: Deliver) -> tuple[ArtifactReport, ...]:
    if deliver == ALL:
        return target.artifacts
    files = target.artifacts
    if deliver == RECOMMENDED:
        run = [each for each in files if not only_size_counts(each, files)] or files
        best = lead(report, target.model_copy(update={"artifacts": tuple(run)}))
        return tuple(each.model_copy(update={"delivered": each is best}) for each in files)
    named = [each for each in files if backend_of(each.format) in deliver] or files
    return tuple(each.model_copy(update={"delivered": each in named}) for each in files)


def delivered(target: TargetReport) -> list[ArtifactReport]:
    """The files that a target's verdict is about: those delivered, and the teacher's own, without
    which nothing can be compared."""
    files = [each for each in target.artifacts if each.delivered]
    return [*files, *([target.baseline] if target.baseline else [])]
