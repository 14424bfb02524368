"""What a report can say about a student besides its accuracy, one diagnostic per file.

`[report] diagnostics = ["calibration", { name = "attacks", epsilon = 0.1 }]` enables them. There
are three kinds, by what they look at:

- `OfOutputs`: the deployed file's outputs on the test set, compared with the teacher's; some
  run the file again on changed inputs.
- `OfNetworks`: the last float candidate and the teacher in PyTorch, where gradients or layers
  are needed. The finding says so: it is not about the deployed file.
- `OfCosts`: the measured costs.

Each returns a `Finding`; a number that is not available is None with its reason.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import FiniteFloat, model_validator
from torch import Tensor, nn

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.errors import EdgekdError, InputError
from edgekd.measure.resampling import interval, means
from edgekd.registry import DIAGNOSTICS
from edgekd.values.measurement import Kind, Measurement
from edgekd.values.tables import Value, build

Unit = Literal["share", "points", "nats", "samples", "joules", "grams", "inferences", ""]


class Line(Value):
    """One number of the student, with the teacher's if there is one. `ci` and `teacher_ci` are
    their 95 % intervals; `reason` says why `student` is None."""

    name: str
    student: FiniteFloat | None
    teacher: FiniteFloat | None = None
    ci: tuple[FiniteFloat, FiniteFloat] | None = None
    teacher_ci: tuple[FiniteFloat, FiniteFloat] | None = None
    unit: Unit = "share"
    reason: str = ""

    @classmethod
    def mean(
        cls, name: str, student: Tensor | None, teacher: Tensor | None = None, reason: str = ""
    ) -> "Line":
        """The means of scores (N,) with their bootstrap intervals; without scores there is no
        number."""
        (mine, ci), (theirs, teacher_ci) = map(_mean, (student, teacher))
        return cls(
            name=name, student=mine, teacher=theirs, ci=ci, teacher_ci=teacher_ci, reason=reason
        )

    @model_validator(mode="after")
    def _a_gap_has_its_reason(self) -> "Line":
        if self.student is None and not self.reason:
            raise ValueError(f"'{self.name}' is missing: say why in its reason")
        return self


def _mean(scores: Tensor | None) -> tuple[float | None, tuple[float, float] | None]:
    if scores is None or not len(scores):
        return None, None
    values = scores.double().numpy()
    return float(values.mean()), interval(means(values))


class Curve(Value):
    """One line of a plot, with as many x as y."""

    name: str
    x: tuple[FiniteFloat, ...]
    y: tuple[FiniteFloat, ...]


class Plot(Value):
    """Curves over common axes; `diagonal` draws the line where y equals x."""

    x: str
    y: str
    curves: tuple[Curve, ...]
    diagonal: bool = False


class Finding(Value):
    """The result of one diagnostic. `of` says what it looked at, `kind` what its numbers are."""

    name: str
    summary: str
    of: str
    kind: Kind
    lines: tuple[Line, ...]
    plot: Plot | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Outputs:
    """A deployed file's outputs (N, ...) on the test set and the teacher's. `run` and `teach`
    compute both for other inputs. Paths in a recipe are relative to `folder`."""

    data: Data
    student: Tensor
    teacher: Tensor
    run: Callable[[Tensor], Tensor]
    teach: Callable[[Tensor], Tensor]
    folder: Path = Path()

    @property
    def task(self) -> Task:
        """The task, which says what the outputs mean."""
        return self.data.task

    @property
    def y(self) -> Tensor:
        """The test set's targets."""
        return self.data.test.y


@dataclass(frozen=True, eq=False)
class Networks:
    """The last float candidate and the teacher, in eval mode on the CPU; None for a black box."""

    data: Data
    student: nn.Module
    teacher: nn.Module | None
    seed: int = 0


@dataclass(frozen=True)
class Costs:
    """The measured costs of a target's files, and the seconds of computation the stages took."""

    baseline: Sequence[Measurement]
    artifacts: Mapping[str, Sequence[Measurement]]
    training_seconds: float


class Diagnostic:
    """A frozen dataclass whose fields are what a recipe may set."""

    def fault(self, task: Task, data: Data) -> str:
        """Why it does not apply to such data, or an empty string."""
        return ""


class OfOutputs(Diagnostic, ABC):
    """Looks at outputs on the test set."""

    @abstractmethod
    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        """The numbers, and a plot of them if there is one."""


class OfNetworks(Diagnostic, ABC):
    """Looks at the networks."""

    @abstractmethod
    def look(self, networks: Networks) -> tuple[list[Line], Plot | None]:
        """The numbers, and a plot of them if there is one."""


class OfCosts(Diagnostic, ABC):
    """Looks at measured costs."""

    @abstractmethod
    def look(self, costs: Costs) -> tuple[list[Line], Plot | None]:
        """The numbers, and a plot of them if there is one."""

    @abstractmethod
    def kind(self, costs: Costs) -> Kind:
        """The kind of the numbers: that of the weakest measurement they are computed from."""


def diagnostics_of(
    wishes: Sequence[str | Mapping[str, Any]], data: Data, where: str
) -> tuple[dict[str, Diagnostic], list[EdgekdError]]:
    """The diagnostics that a recipe asks for, by name, and a fault for each one that is not
    possible."""
    made: dict[str, Diagnostic] = {}
    faults: list[EdgekdError] = []
    for number, wish in enumerate(wishes, 1):
        place = f"{where}.{number}"
        table = {"name": wish} if isinstance(wish, str) else dict(wish)
        name = str(table.pop("name", ""))
        try:
            diagnostic: Diagnostic = build(DIAGNOSTICS.get(name, place), table, place)
        except EdgekdError as error:
            faults.extend(error.faults)
            continue
        reason = diagnostic.fault(data.task, data)
        if data.task.judges_whole and isinstance(diagnostic, OfOutputs):
            reason = f"it compares single samples, which the task {data.task.name} does not judge"
        if reason or name in made:
            faults.append(InputError(reason or f"'{name}' is listed twice", where=place))
        else:
            made[name] = diagnostic
    return made, faults


def summary_of(name: str) -> str:
    """The first line of a diagnostic's docstring."""
    return DIAGNOSTICS.get(name).summary


NEEDS_LABELS = "needs a class label for every row of logits, which {} does not have"


def labelled_rows(task: Task, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (R, classes) and labels (R,), without the rows that have no label."""
    rows, labels = task.rows(outputs), task.row_labels(y)
    assert rows is not None
    assert labels is not None
    known = labels >= 0
    return rows[known].double(), labels[known]
