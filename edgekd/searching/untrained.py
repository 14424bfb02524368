"""What a trial's files cost before anything is trained: the plan's untrained files, run where the
trained ones will run.

Training changes a file's numbers, not its structure, so the untrained file is about as fast and
needs as much memory and energy as the trained one. How far it errs is known from the trials that
were measured afterwards.
"""

import json
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekd.backends import Follower
from edgekd.errors import EdgekdError
from edgekd.installed import tool_versions
from edgekd.measure.budgets import budget_named
from edgekd.report import numbers
from edgekd.run.compiled import Compiled
from edgekd.run.plan import Plan, PlannedTarget
from edgekd.run.plan.planned import ExpectedFile
from edgekd.run.precisions import taken_by
from edgekd.run.proof.artifact_report import cost_measurements
from edgekd.run.proof.costs import costs_of
from edgekd.run.proof.place import Place, place_for
from edgekd.searching.judging import Limits
from edgekd.searching.outcome import Trial, UntrainedFile, short
from edgekd.stages import Progress
from edgekd.store import code_key, key_of
from edgekd.values.artifact import Artifact
from edgekd.values.backend_lookup import not_run
from edgekd.values.measurement import Kind, Measurement
from edgekd.values.tables import Value
from edgekd.values.target import Target

STORED = "untrained"
"""The store's entry for what untrained files cost."""

TIMED = ("latency", "memory", "energy", "instructions")
"""The families of budgets that need a file to run before they can be judged."""

TOLD = ("latency_ms_p", "peak_memory", "memory_bytes", "energy_mj", "instructions")
"""How the metrics begin that untrained and trained files are compared by."""

LEAST_PAIRS = 4
"""How many files have to be known untrained and trained before their differences are trusted."""

AT_FIRST = 1.25
"""How many times its limit a cost has to be, before that many files are known."""

LEAST_MARGIN = 1.05

NEAR = 0.1
"""Within this share of the measured value, a cost was well predicted."""


class PredictionError(Value):
    """How well the untrained files tell a metric of the trained ones, over `files` of them: the
    median of the relative errors, the largest, and the share of files within 10 %."""

    metric: str
    files: int
    median: float
    largest: float
    within_10_percent: float

    @property
    def text(self) -> str:
        """The errors on one line."""
        files = f"{self.files} file" + "s" * (self.files > 1)
        return (
            f"{self.metric} of {files} before training: median error "
            f"{numbers.percent(self.median)}, largest {numbers.percent(self.largest)}, "
            f"{numbers.percent(self.within_10_percent)} within 10 %"
        )


def is_timed(limits: Mapping[str, float]) -> bool:
    """Whether some budget is on something that only a run can tell."""
    return any(name.startswith(TIMED) for name in limits)


def untrained_files(
    plan: Plan, limits: Limits, accept: Sequence[Kind], progress: Progress
) -> tuple[UntrainedFile, ...]:
    """The costs of the files that the plan kept, of each target that has a budget on them: briefly
    measured, or told by the compiler that makes another file of them; cached by content."""
    files: list[UntrainedFile] = []
    for planned in plan.targets:
        if not is_timed(limits[planned.target.name]):
            continue
        files += told_by_compilers(plan, planned)
        artifacts = _run_as_they_are(planned)
        if not artifacts:
            continue
        place = place_for(plan, planned.target)
        try:
            files += _cached(plan, planned.target, place, artifacts, accept, progress)
        finally:
            place.device.close()
    return tuple(files)


def _run_as_they_are(planned: PlannedTarget) -> list[Artifact]:
    """The target's files that will run as the plan compiled them; none if another compiler follows,
    whose files may be faster."""
    followers = [backend for backend in planned.backends.values() if isinstance(backend, Follower)]
    if any(not kind.not_run for follower in followers for kind in follower.info.files):
        return []
    kept = [file.artifact for file in planned.expected if file.artifact is not None]
    return [artifact for artifact in kept if not not_run(artifact.format)]


def told_by_compilers(plan: Plan, planned: PlannedTarget) -> list[UntrainedFile]:
    """What the files cost that compilers make of a target's untrained ones, where compiling tells
    it: the instructions of generated C, the cycles of an NPU."""
    kept = [file.artifact for file in planned.expected if file.artifact is not None]
    return [
        file
        for name, backend in planned.backends.items()
        if isinstance(backend, Follower) and backend.info.tells_costs
        for artifact in taken_by(backend.info, kept)
        for file in _compiled(plan, planned.target, name, backend, artifact)
    ]


def _compiled(
    plan: Plan, target: Target, name: str, backend: Follower, artifact: Artifact
) -> list[UntrainedFile]:
    table = target.model_dump(mode="json", exclude={"budgets"})
    key = key_of(code_key(measured=True), artifact.sha256, table, name, tool_versions())
    entry = plan.store.find(STORED, key)
    if entry is None:
        options = target.backends.get(name, {})
        with tempfile.TemporaryDirectory(prefix="edgekd-untrained-") as folder:
            try:
                made = backend.follow(artifact, target, options, Path(folder))
            except EdgekdError:  # the run's own compilation says why
                return []
            files = [_file(target, each, (), artifact.sha256) for each in made]
        entry = _published(plan, key, files)
    return _read(entry)


def _cached(
    plan: Plan,
    target: Target,
    place: Place,
    artifacts: Sequence[Artifact],
    accept: Sequence[Kind],
    progress: Progress,
) -> list[UntrainedFile]:
    table = target.model_dump(mode="json", exclude={"budgets"})
    hashes = [artifact.sha256 for artifact in artifacts]
    key = key_of(
        code_key(measured=True), hashes, table, accept, plan.request.device, place.facts,
        tool_versions(),
    )  # fmt: skip
    entry = plan.store.find(STORED, key)
    if entry is None:
        counts = place.device.kind in ("measured", *accept)
        files = [Compiled(artifact, None) for artifact in artifacts]
        costs = costs_of(plan, target, place, files if counts else [], progress, with_layers=False)
        rows = [cost.measurements for cost in costs] if counts else [()] * len(files)
        made = [_file(target, *pair) for pair in zip(artifacts, rows, strict=True)]
        entry = _published(plan, key, made)
    return _read(entry)


def _published(plan: Plan, key: str, files: Sequence[UntrainedFile]) -> Path:
    tables = [file.model_dump(mode="json") for file in files]

    def write(folder: Path) -> None:
        (folder / "files.json").write_text(json.dumps(tables) + "\n", encoding="utf-8")

    return plan.store.publish(STORED, key, write)


def _read(entry: Path) -> list[UntrainedFile]:
    tables = json.loads((entry / "files.json").read_text(encoding="utf-8"))
    return [UntrainedFile.model_validate(table) for table in tables]


def _file(
    target: Target, artifact: Artifact, costs: Sequence[Measurement], made_of: str = ""
) -> UntrainedFile:
    return UntrainedFile(
        target=target.name,
        format=artifact.format,
        precision=artifact.precision,
        sha256=artifact.sha256,
        measurements=tuple(map(short, cost_measurements(artifact, costs))),
        made_of=made_of,
    )


@dataclass(frozen=True)
class UntrainedCosts:
    """What the files of one trial cost before training, and what is known of how well that tells
    the trained ones: `factors` has, by target and metric, how many times too large a cost may be.
    `accept` are the kinds of number besides measured ones that count."""

    files: tuple[UntrainedFile, ...] = ()
    factors: Mapping[tuple[str, str], float] = field(default_factory=dict)
    accept: Sequence[Kind] = ()

    def least(self, target: str, file: ExpectedFile, budget: str, at_first: float) -> float | None:
        """What the trained file will cost at least, in the budget's unit; None if nothing tells.
        `at_first` divides the cost as long as too few trained files are known."""
        known = budget_named(budget)
        values = [
            (measurement.ci or (measurement.value,))[0]
            / self.factors.get((target, measurement.metric), max(at_first, AT_FIRST))
            for own in self.files
            if file.artifact is not None and _tells_of(own, file.artifact.sha256, budget)
            for measurement in own.measurements
            if own.target == target
            and measurement.metric in known.measured_as
            and measurement.value is not None
            and measurement.kind in ("measured", *self.accept)
        ]
        return min(values) / known.factor if values else None

    def text(self, target: str, file: ExpectedFile, budget: str, least: str) -> str:
        """How a refusal says what a file takes at least."""
        return f"takes at least {least} untrained"


def _tells_of(own: UntrainedFile, sha256: str, budget: str) -> bool:
    """Whether an untrained file tells a budget of a plan's file: it is that file, or it runs in its
    place."""
    return own.sha256 == sha256 or (own.made_of == sha256 and not budget.startswith("size"))


def tells(files: Sequence[UntrainedFile], budgets: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether the files were run where each of these targets' budgets asks, so that they decide."""
    known = {
        (file.target, measurement.metric)
        for file in files
        for measurement in file.measurements
        if measurement.value is not None
    }
    return all(
        any((target, metric) in known for metric in budget_named(name).measured_as)
        for target, names in budgets.items()
        for name in names
    )


def factors_of(trials: Sequence[Trial]) -> dict[tuple[str, str], float]:
    """By target and metric, the factor by which no untrained file exceeded the trained one, where
    enough are known: the largest of n is exceeded by another with probability 1 / (n + 1)."""
    pairs = _pairs(trials)
    return {
        key: max(LEAST_MARGIN, *(untrained / trained for untrained, trained in several))
        for key, several in pairs.items()
        if len(several) >= LEAST_PAIRS
    }


def errors_of(
    trials: Sequence[Trial], target: str, limits: Mapping[str, float]
) -> tuple[PredictionError, ...]:
    """How well the untrained files told the trained ones' costs on a target, for each metric that
    has a limit."""
    held = {metric for budget in limits for metric in budget_named(budget).measured_as}
    return tuple(
        _error(metric, [untrained / trained - 1.0 for untrained, trained in several])
        for (name, metric), several in sorted(_pairs(trials).items())
        if name == target and metric in held
    )


def _error(metric: str, errors: Sequence[float]) -> PredictionError:
    sizes = [abs(error) for error in errors]
    return PredictionError(
        metric=metric,
        files=len(sizes),
        median=statistics.median(sizes),
        largest=max(sizes),
        within_10_percent=sum(size <= NEAR for size in sizes) / len(sizes),
    )


def _pairs(trials: Sequence[Trial]) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """What files cost untrained and trained, by target and metric."""
    pairs: dict[tuple[str, str], list[tuple[float, float]]] = {}
    for trial in trials:
        trained = {(file.target, file.format, file.precision): file for file in trial.files}
        for untrained in trial.untrained:
            file = trained.get((untrained.target, untrained.format, untrained.precision))
            values = _values(file.measurements) if file else {}
            for metric, value in _values(untrained.measurements).items():
                if metric in values:
                    pair = (value, values[metric])
                    pairs.setdefault((untrained.target, metric), []).append(pair)
    return pairs


def _values(measurements: Sequence[Measurement]) -> dict[str, float]:
    """The costs above 0 that a run told, by metric."""
    return {
        measurement.metric: measurement.value
        for measurement in measurements
        if measurement.value is not None
        and measurement.value > 0
        and measurement.metric.startswith(TOLD)
    }
