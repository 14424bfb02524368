"""What is kept of a trial: its parameters, its files' numbers, or why it has none."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from edgekd.errors import EdgekdError
from edgekd.report.only_size import only_size_counts
from edgekd.report.values import ArtifactReport, Report
from edgekd.store import write_beside
from edgekd.values.measurement import Measurement, cost_words
from edgekd.values.tables import Value

NAME = "trial.json"

State = Literal["finished", "refused", "stopped", "failed"]
"""refused: its plan already breaks a budget, so nothing was trained; stopped: its training was
ended early, since others were better by then; failed: an error ended it."""


class TrialFile(Value):
    """A file of a trial and how good it is. `accuracy` is that on the test set, `validation` that
    on the validation samples, by which the search chooses. `path` is relative to the trial's
    folder."""

    path: str
    format: str
    precision: str
    sha256: str
    bytes: int
    accuracy: float | None
    accuracy_ci: tuple[float, float] | None = None
    validation: float | None = None

    @property
    def score(self) -> float | None:
        """The accuracy that the search chooses by."""
        return self.accuracy if self.validation is None else self.validation

    @property
    def name(self) -> str:
        """The file's name and type."""
        return f"{self.path.rpartition('/')[2]} ({self.precision})"


class FileOutcome(TrialFile):
    """A file for one target with what was measured of it. `parity` says whether it computes what
    its reference does; `only_size` that another file is run in its place."""

    target: str
    runtime: str
    parity: Literal["pass", "fail"] | None = None
    only_size: bool = False
    measurements: tuple[Measurement, ...] = ()


class UntrainedFile(Value):
    """A file of a trial as it was compiled before any training, with what it cost then. `made_of`
    is the hash of the plan's file from which another compiler made it."""

    target: str
    format: str
    precision: str
    sha256: str
    measurements: tuple[Measurement, ...] = ()
    made_of: str = ""


class PredictedFile(Value):
    """What a file of a trial will cost, as the table of its runtime on the target's device tells
    before any training. `cost` is of kind "estimated", from `table_files` files; when those were
    left out, the median error was `median_error`, and the largest overestimate `most_over`."""

    target: str
    format: str
    precision: str
    sha256: str
    cost: Measurement
    table_files: int
    median_error: float
    most_over: float

    @property
    def text(self) -> str:
        """The prediction in a few words."""
        cost = f"{cost_words(self.cost)} ({self.cost.kind})"
        return f"{self.format} ({self.precision}) predicted at {cost}"


class RungScore(Value):
    """The accuracy on the validation samples after `epoch` of `epochs` of a training, where its
    first quarter (`quarters` = 1) or half (2) is over. `training` names the stage and phase."""

    training: str
    quarters: int
    epoch: int
    epochs: int
    accuracy: float


class Course(Value):
    """What is known of a trial while it trains: what its plan expects of its files' sizes, and its
    accuracies at the rungs where trials are compared."""

    sizes: dict[str, int] = {}
    scores: tuple[RungScore, ...] = ()


class Trial(Value):
    """One trial of a search. `key` identifies its recipe, whatever the values were called.
    `killed` says that the process ended whenever it ran. `refused_by` has the budgets of each
    target that its plan breaks, and by which share of the limit."""

    number: int
    state: State
    key: str
    parameters: dict[str, str | int | float | bool]
    seconds: float
    files: tuple[FileOutcome, ...] = ()
    message: str = ""
    where: str = ""
    hint: str = ""
    exit_code: int = 0
    killed: bool = False
    refused_by: dict[str, dict[str, float]] = {}
    course: Course = Course()
    untrained: tuple[UntrainedFile, ...] = ()
    predicted: tuple[PredictedFile, ...] = ()

    @property
    def folder(self) -> str:
        """The trial's folder below that of the search."""
        return folder_of(self.number)


def folder_of(number: int) -> str:
    """The folder of a trial: `trials/0007`."""
    return f"trials/{number:04d}"


def file_outcomes(report: Report, validation: Mapping[str, float]) -> tuple[FileOutcome, ...]:
    """Every file of a run; `validation` has the accuracies on the validation samples by hash."""
    return tuple(
        _outcome(target.name, artifact, target.artifacts, validation)
        for target in report.targets
        for artifact in target.artifacts
    )


def _outcome(
    target: str,
    artifact: ArtifactReport,
    others: Sequence[ArtifactReport],
    validation: Mapping[str, float],
) -> FileOutcome:
    return FileOutcome(
        target=target,
        path=artifact.path,
        format=artifact.format,
        runtime=artifact.runtime,
        precision=artifact.precision,
        sha256=artifact.sha256,
        bytes=artifact.bytes,
        accuracy=artifact.accuracy,
        accuracy_ci=artifact.accuracy_ci,
        validation=validation.get(artifact.sha256),
        parity=artifact.parity.verdict if artifact.parity else None,
        only_size=only_size_counts(artifact, others),
        measurements=tuple(map(short, artifact.measurements)),
    )


def short(measurement: Measurement) -> Measurement:
    """Without samples and conditions, which the trial's own report has."""
    return measurement.model_copy(update={"samples": (), "conditions": {}})


def failed(
    number: int, key: str, parameters: Mapping[str, str | int | float | bool], error: EdgekdError
) -> Trial:
    """A trial that an error ended; the first fault says why."""
    fault = error.faults[0]
    return Trial(
        number=number,
        state="failed",
        key=key,
        parameters=dict(parameters),
        seconds=0.0,
        message=fault.message,
        where=fault.where,
        hint=fault.hint,
        exit_code=error.exit_code,
    )


def keep_trial(trial: Trial, out: Path) -> None:
    """Write a finished trial into its folder."""
    write_beside(out / trial.folder / NAME, trial.model_dump_json(indent=1) + "\n")


def kept_trials(out: Path) -> list[Trial]:
    """The finished trials in a search's folder, by number; files of another form are left out."""
    trials = []
    for path in sorted((out / "trials").glob(f"*/{NAME}")):
        try:
            trials.append(Trial.model_validate(json.loads(path.read_text(encoding="utf-8"))))
        except (OSError, ValueError):
            continue
    return trials
