"""How many cases are found when so many of the healthy may be alarmed."""

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

    The threshold on the class's probability is taken from the same samples, for student and teacher
    apart: the share of positives above it, when at least `specificity` of the others are not.
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
            return f"there is no class {self.positive}: 0 to {data.classes - 1}"
        present = task.row_labels(data.test.y)
        assert present is not None
        held = present == self.positive
        if not bool(held.any()) or bool(held.all()):
            return "the test set needs samples of the positive class and of others"
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
    """1 for each positive above the smallest threshold with that specificity or more, else 0; the
    mean is the sensitivity, its interval that of the positives at this threshold."""
    others = scores[~positive].sort().values
    least = -int(-specificity * len(others) // 1)  # so many of the others must not lie above
    threshold = others[max(0, least - 1)]
    return (scores[positive] > threshold).double()
