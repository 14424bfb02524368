"""How far the tables' predictions are from the files that a search measures, and what that changes.

A table knows other networks than those of the search, so it is corrected by the median ratio of
what the search's own files took to what was predicted for them.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgekd.measure.budgets import budget_named
from edgekd.report import numbers
from edgekd.searching.outcome import PredictedFile, Trial
from edgekd.values.tables import Value

FAMILIES = ("latency", "instructions")
"""The families of budgets that tables tell."""

TABLE = "cost table"
"""Where a trial was refused that a table says is too slow."""

LEAST_COMPARED = 4
"""How many measured files a correction needs before it is trusted."""

LEAST_MARGIN = 1.05

NEAR = 0.1


@dataclass(frozen=True)
class Correction:
    """What makes a metric of predictions for one target: they are multiplied by `ratio`, the median
    over `files` measured files. `errors` are the relative errors of each file's prediction when the
    ratio is that of the others."""

    files: int
    ratio: float
    errors: tuple[float, ...]

    @property
    def is_trusted(self) -> bool:
        """Whether enough files were compared."""
        return self.files >= LEAST_COMPARED

    @property
    def margin(self) -> float:
        """By which factor no file was overestimated."""
        return max(LEAST_MARGIN, 1.0 + max(self.errors, default=0.0))


def corrections_of(trials: Sequence[Trial]) -> dict[tuple[str, str], Correction]:
    """How predictions are corrected by the files that were measured of these trials, by target and
    metric."""
    ratios: dict[tuple[str, str], list[float]] = {}
    for trial in trials:
        for predicted in trial.predicted:
            for metric, value in _measured(trial, predicted).items():
                if predicted.cost.value:
                    key = (predicted.target, metric)
                    ratios.setdefault(key, []).append(value / predicted.cost.value)
    return {key: _correction(several) for key, several in ratios.items()}


def _correction(ratios: Sequence[float]) -> Correction:
    errors = tuple(
        statistics.median([*ratios[:place], *ratios[place + 1 :]]) / ratio - 1.0
        for place, ratio in enumerate(ratios)
        if len(ratios) > 1
    )
    return Correction(len(ratios), statistics.median(ratios), errors)


def _measured(trial: Trial, predicted: PredictedFile) -> dict[str, float]:
    """What a predicted file took, by metric: the trained file, or else the untrained one. A file
    from which another is made, as C is from TFLite, takes what that one does."""
    family = predicted.cost.metric.partition("_")[0]
    same = [
        file.measurements
        for files in (trial.files, trial.untrained)
        for file in files
        if (file.target, file.precision) == (predicted.target, predicted.precision)
        and (file.format == predicted.format or family == "instructions")
    ]
    for measurements in same:
        found = {
            each.metric: each.value
            for each in measurements
            if each.metric.startswith(family) and each.value is not None and each.value > 0
            and each.kind in ("measured", "simulated")
        }  # fmt: skip
        if found:
            return found
    return {}


class TableUse(Value):
    """What a table did for one metric of a target: from how many files it predicts and with which
    errors on files left out; how many trials it alone refused; and how well its predictions, times
    `ratio`, told the `compared` files that were measured, each by the ratio of the others."""

    metric: str
    table_files: int
    median_error: float
    most_over: float
    refused: int
    compared: int = 0
    ratio: float | None = None
    corrected_median: float | None = None
    corrected_largest: float | None = None
    within_10_percent: float | None = None

    @property
    def text(self) -> str:
        """The use on one line."""
        trials = f"{self.refused} trial" + "s" * (self.refused != 1)
        first = (
            f"{self.metric} by a table of {self.table_files} files (estimated; median error of "
            f"files left out {numbers.percent(self.median_error)}): {trials} refused"
        )
        if self.ratio is None:
            return f"{first}; no file was measured to correct it"
        files = f"{self.compared} file" + "s" * (self.compared != 1)
        ratio = f"{first}; {files} took {self.ratio:.3g} times as much"
        if self.corrected_median is None or self.corrected_largest is None:
            return ratio
        return (
            f"{ratio}; corrected by that, the median error is "
            f"{numbers.percent(self.corrected_median)}, the largest "
            f"{numbers.percent(self.corrected_largest)}"
        )


def table_uses(
    trials: Sequence[Trial], target: str, limits: Mapping[str, float]
) -> tuple[TableUse, ...]:
    """What the tables did for each metric of a target that has a limit."""
    files = [file for trial in trials for file in trial.predicted if file.target == target]
    if not files:
        return ()
    corrections = corrections_of(trials)
    uses = []
    for budget in limits:
        if not budget.startswith(FAMILIES):
            continue
        metric = budget_named(budget).measured_as[0]
        own = [file for file in files if file.cost.metric.startswith(metric.partition("_")[0])]
        refused = sum(
            trial.state == "refused" and trial.where == TABLE and budget in trial.refused_by[target]
            for trial in trials
            if target in trial.refused_by
        )
        if own:
            uses.append(_use(metric, own[-1], refused, corrections.get((target, metric))))
    return tuple(uses)


def _use(metric: str, file: PredictedFile, refused: int, correction: Correction | None) -> TableUse:
    use = TableUse(
        metric=metric,
        table_files=file.table_files,
        median_error=file.median_error,
        most_over=file.most_over,
        refused=refused,
    )
    if correction is None:
        return use
    sizes = [abs(error) for error in correction.errors]
    update = {"compared": correction.files, "ratio": correction.ratio}
    if sizes:
        update |= {
            "corrected_median": statistics.median(sizes),
            "corrected_largest": max(sizes),
            "within_10_percent": sum(size <= NEAR for size in sizes) / len(sizes),
        }
    return use.model_copy(update=update)
