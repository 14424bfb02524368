"""Which classes are recognized, and which are lost."""

from dataclasses import dataclass

from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import NEEDS_LABELS, Line, OfOutputs, Outputs, Plot, labelled_rows
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="per-class recall")
@dataclass(frozen=True)
class Recall(OfOutputs):
    """The share of each class's samples that is recognized as that class."""

    def fault(self, task: Task, data: Data) -> str:
        return "" if task.labels_rows else f"'recall' {NEEDS_LABELS.format(task.name)}"

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        sides = [
            recognized(*labelled_rows(outputs.task, side, outputs.y), outputs.data.classes)
            for side in (outputs.student, outputs.teacher)
        ]
        names = outputs.data.labels or tuple(map(str, range(outputs.data.classes)))
        lines = [
            Line.mean(
                f"class {name}", mine, theirs, "" if len(mine) else "no test sample of this class"
            )
            for name, mine, theirs in zip(names, *sides, strict=True)
        ]
        return lines, None


def recognized(rows: Tensor, labels: Tensor, classes: int) -> list[Tensor]:
    """For each class, 1 or 0 for each of its samples, whether it is recognized; the mean is its
    recall."""
    right = (rows.argmax(1) == labels).double()
    return [right[labels == label] for label in range(classes)]
