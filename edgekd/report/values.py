"""The results of a run: the values behind report.json, report.html and the terminal output.

Accuracies and agreements are shares from 0 to 1. A number that is not available is None, and
`reasons` says why under its name; 0 always means zero.
"""

# code-key: measures

from html import escape
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    ConfigDict,
    Field,
    FiniteFloat,
    NonNegativeInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from edgekd.errors import nearest
from edgekd.measure.diagnosis import Diagnosis
from edgekd.measure.diagnostics import Finding
from edgekd.measure.layer_times import LayerTimes
from edgekd.measure.parity import Parity
from edgekd.values.artifact import IN_FLOAT, OpPlacement, Precision, TensorInfo
from edgekd.values.measurement import Judgement, Kind, Measurement, Verdict
from edgekd.values.tables import Value

KEPT_SAMPLES = 512

Share = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
Interval = tuple[FiniteFloat, FiniteFloat]
Seconds = Annotated[FiniteFloat, Field(ge=0.0)]


class Reasoned(Value):
    """A value whose `numbers` may be None, each then with its reason in `reasons`."""

    numbers: ClassVar[tuple[str, ...]] = ()
    reasons: dict[str, str] = {}

    @model_validator(mode="after")
    def _every_gap_has_its_reason(self) -> "Reasoned":
        gaps = {name for name in self.numbers if getattr(self, name) is None}
        for name in sorted(gaps):
            if not self.reasons.get(name):
                raise ValueError(f"'{name}' is missing: say why in reasons['{name}']")
        for name in sorted(set(self.reasons) - gaps):
            if name in self.numbers:
                raise ValueError(f"'{name}' has a value and a reason why it has none")
            hint = nearest(name, self.numbers)
            raise ValueError(
                f"a reason for '{name}', which is not a value here; {hint}".rstrip("; ")
            )
        return self


class Dataset(Value):
    """The data of a run. Accuracies are means of the task's score, whose name is `metric`.
    `classes` is 0 if the task has none."""

    name: str
    classes: NonNegativeInt
    train: NonNegativeInt
    validation: NonNegativeInt
    test: NonNegativeInt
    sha256: str = ""
    task: str = "classification"
    metric: str = "top-1"


class LayerCost(Value):
    """One layer with weights: its module name, its type (Conv2d), and its multiply-accumulates
    (MACs) for a batch of one."""

    name: str
    kind: str
    parameters: NonNegativeInt
    macs: NonNegativeInt


class Layers(Value):
    """Every layer's cost in the original model and in the last candidate."""

    before: tuple[LayerCost, ...] = ()
    after: tuple[LayerCost, ...] = ()


def thinned(samples: tuple[float, ...], most: int = KEPT_SAMPLES) -> tuple[float, ...]:
    """At most `most` of the samples: sorted and taken at evenly spaced ranks, with both ends."""
    if len(samples) <= most:
        return samples
    ordered = sorted(samples)
    last = len(ordered) - 1
    return tuple(ordered[round(rank * last / (most - 1))] for rank in range(most))


def _kept(measurement: Measurement) -> Measurement:
    if measurement.value is None and not measurement.reason:
        raise ValueError(f"'{measurement.metric}' has no value: say why in its reason")
    if measurement.value is not None and not _finite(measurement.value):
        raise ValueError(f"'{measurement.metric}' is {measurement.value}: not a measurement")
    if len(measurement.samples) <= KEPT_SAMPLES:
        return measurement
    conditions = {**measurement.conditions, "samples kept": f"{KEPT_SAMPLES}, by rank"}
    return measurement.model_copy(
        update={"samples": thinned(measurement.samples), "conditions": conditions}
    )


def _finite(value: float) -> bool:
    return value - value == 0.0


class Measured(Reasoned):
    """Something that has measurements; long lists of samples are thinned by rank."""

    measurements: tuple[Measurement, ...] = ()

    @field_validator("measurements")
    @classmethod
    def _thin(cls, measurements: tuple[Measurement, ...]) -> tuple[Measurement, ...]:
        return tuple(_kept(measurement) for measurement in measurements)

    def measurement(self, metric: str) -> Measurement | None:
        """The first measurement of that metric that has a value."""
        for measurement in self.measurements:
            if measurement.metric == metric and measurement.value is not None:
                return measurement
        return None


class TeacherReport(Reasoned):
    """The model that is compressed or that teaches; a black box has no parameters or MACs to count.
    `bytes` is the size of its weights in float32, or of its file."""

    numbers = ("accuracy", "parameters", "macs", "bytes")
    name: str = ""
    accuracy: Share | None
    accuracy_ci: Interval | None = None
    parameters: NonNegativeInt | None
    macs: NonNegativeInt | None
    bytes: NonNegativeInt | None


class StageReport(Measured):
    """One stage and the candidate it returned. `line` is its line of lineage, `bytes` the size of
    the candidate's weights as stored, `accuracy_ci` the accuracy's bootstrap interval at 95 %."""

    numbers = ("accuracy", "parameters", "macs", "bytes")
    kind: str
    cached: bool
    seconds: Seconds
    accuracy: Share | None
    accuracy_ci: Interval | None = None
    parameters: NonNegativeInt | None
    macs: NonNegativeInt | None
    bytes: NonNegativeInt | None
    line: str = ""
    key: str = ""
    notes: tuple[str, ...] = ()


class ArtifactReport(Measured):
    """One file: what it is, what it computes, and what it costs. `path` is relative to the run's
    folder. `accuracy_drop` is in percentage points against the teacher (below 0 is better), with
    its paired bootstrap interval. `warnings` say where compressing it has not paid. The run's
    verdict is about the files that are `delivered`."""

    numbers = ("accuracy", "accuracy_drop", "agreement_with_teacher", "parity")
    path: str
    format: str
    runtime: str
    precision: Precision
    sha256: str
    bytes: NonNegativeInt
    accuracy: Share | None
    accuracy_ci: Interval | None = None
    accuracy_drop: FiniteFloat | None
    accuracy_drop_ci: Interval | None = None
    agreement_with_teacher: Share | None
    parity: Parity | None
    budgets: tuple[Judgement, ...] = ()
    placements: tuple[OpPlacement, ...] = ()
    versions: dict[str, str] = {}
    lineage: tuple[str, ...] = ()
    facts: dict[str, float | str] = {}
    companions: dict[str, str] = {}
    inputs: tuple[TensorInfo, ...] = ()
    outputs: tuple[TensorInfo, ...] = ()
    notes: tuple[str, ...] = ()
    diagnostics: tuple[Finding, ...] = ()
    layer_times: LayerTimes | None = None
    warnings: tuple[str, ...] = ()
    delivered: bool = True

    @property
    def label(self) -> str:
        """Its precision, and how many operators of an integer file compute in float."""
        count = self.facts.get(IN_FLOAT)
        return f"{self.precision} with {count:g} in float" if count else self.precision


class BackendFailure(Value):
    """A backend that made no file, why, and what to do about it."""

    backend: str
    message: str
    hint: str = ""


class PrecisionChoice(Value):
    """Which of the precisions of one format was chosen: the file's `path`, and why. The others are
    not delivered."""

    format: str
    precision: Precision
    path: str
    reason: str


class TargetReport(Reasoned):
    """One target's files. `baseline` is the uncompressed teacher, compiled for this target and
    measured in the same process; "x times faster" refers to it. `failures` are backends that made
    no file. `choices` has an entry for each format of which several precisions were compared.
    `edgekd diagnose` adds the `diagnosis`."""

    numbers = ("baseline",)
    name: str
    title: str = ""
    device: str = ""
    baseline: ArtifactReport | None
    artifacts: tuple[ArtifactReport, ...]
    failures: tuple[BackendFailure, ...] = ()
    notes: tuple[str, ...] = ()
    diagnostics: tuple[Finding, ...] = ()
    diagnosis: Diagnosis | None = None
    choices: tuple[PrecisionChoice, ...] = ()

    @property
    def chosen(self) -> tuple[ArtifactReport, ...]:
        """The files without those of precisions that were passed over."""
        kept = {choice.format: choice.path for choice in self.choices}
        return tuple(
            each for each in self.artifacts if kept.get(each.format, each.path) == each.path
        )


def _summary(artifact: ArtifactReport) -> str:
    """A file in one line, without what was not measured."""
    parts = [f"{artifact.path} {artifact.label}, {artifact.bytes:,} bytes"]
    if artifact.accuracy is not None:
        parts.append(f"accuracy {artifact.accuracy:.4f}")
    latency = next((m for m in artifact.measurements if m.metric == "latency_ms_p50"), None)
    if latency is not None and latency.value is not None:
        parts.append(f"{latency.value:.4g} ms ({latency.kind})")
    return ", ".join(parts)


class Report(Value):
    """A whole run. `plan` has a line for each thing that was done. `accepted` are the kinds weaker
    than measured that the user accepted. `created` is an ISO 8601 time, or empty."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True)

    schema_version: Literal[1] = Field(default=1, alias="schema")
    verdict: Verdict
    seed: int
    versions: dict[str, str]
    name: str = ""
    created: str = ""
    command: str = ""
    accepted: tuple[Kind, ...] = ()
    plan: tuple[str, ...] = ()
    data: Dataset
    teacher: TeacherReport
    stages: tuple[StageReport, ...]
    layers: Layers = Layers()
    targets: tuple[TargetReport, ...]
    notes: tuple[str, ...] = ()
    _folder: Path | None = PrivateAttr(default=None)

    def __str__(self) -> str:
        """The verdict, and a line for each file: its size, accuracy and latency."""
        lines = [f"verdict: {self.verdict}"]
        for target in self.targets:
            lines += [f"{target.name}: {_summary(artifact)}" for artifact in target.artifacts]
        return "\n".join(lines)

    @property
    def folder(self) -> Path | None:
        """The run's folder, from which the artifacts' paths start; None if it is not on disk."""
        return self._folder

    def kept_in(self, folder: Path) -> "Report":
        """The same report, which knows its folder."""
        copy = self.model_copy()
        copy._folder = folder.resolve()
        return copy

    def __repr__(self) -> str:
        files = sum(len(target.artifacts) for target in self.targets)
        names = ", ".join(target.name for target in self.targets)
        return f"<Report {self.verdict}: {files} files for {names}, in {self.folder}>"

    def _repr_html_(self) -> str:
        """The run's page in a frame, which is how a notebook shows the report."""
        page = self.folder / "report.html" if self.folder else None
        if page is None or not page.is_file():
            return f"<pre>{escape(repr(self))}</pre>"
        text = escape(page.read_text(encoding="utf-8"))
        return f'<iframe srcdoc="{text}" width="100%" height="800"></iframe>'

    def as_json(self) -> dict[str, Any]:
        """The plain tables of report.json, not rounded."""
        return self.model_dump(mode="json", by_alias=True)
