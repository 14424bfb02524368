"""How many cases are detected at a given rate of false alarms."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import NEEDS_LABELS, Line, OfOutputs, Outputs, Plot, labelled_rows
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="Youden 1950")
@dataclass(frozen=True)
class Sensitivity(OfOutputs):
    """The sensitivity for class `positive` at the threshold that keeps this `specificity`.

    The threshold on the class's probability is chosen on the same samples, separately for student
    and teacher. The result is the share of positives above it, while at least `specificity` of the
    other samples are not.
    """

    positive: int = 1
    specificity: float = 0.95

    def __post_init__(self) -> None:
        if not 0 < self.specificity < 1:
            raise ValueError(f"specificity must lie between 0 and 1, found {self.specificity}")

    def fault(self, task: Task, data: Data) -> str:
        if not task.labels_rows:
            return f"'sensitivity' {NEEDS_LABELS.format(task.name)}"
        if not 0 <= self.positive < data.classes:
            return f"no class {self.positive}: classes are 0 to {data.classes - 1}"
        present = task.row_labels(data.test.y)
        assert present is not None
        held = present == self.positive
        if not bool(held.any()) or bool(held.all()):
            return "the test set has to contain the positive class and others"
        return ""

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        sides = []
        for side in (outputs.student, outputs.teacher):
            rows, labels = labelled_rows(outputs.task, side, outputs.y)
            likely = torch.log_softmax(rows, 1)[:, self.positive]
            sides.append(found(likely, labels == self.positive, self.specificity))
        return [
            Line.mean(f"sensitivity at specificity {self.specificity:g}", sides[0], sides[1])
        ], None


def found(scores: Tensor, positive: Tensor, specificity: float) -> Tensor:
    """1 for each positive sample above the smallest threshold with at least that specificity, else
    0. The mean is the sensitivity; its interval is that of the positives at this threshold."""
    others = scores[~positive].sort().values
    least = -int(-specificity * len(others) // 1)  # this many of the others must not be above it
    threshold = others[max(0, least - 1)]
    return (scores[positive] > threshold).double()
