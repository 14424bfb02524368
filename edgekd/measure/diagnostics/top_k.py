"""Whether the label is among the k largest logits."""

from dataclasses import dataclass

from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import NEEDS_LABELS, Line, OfOutputs, Outputs, Plot, labelled_rows
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="Russakovsky et al. 2015, ImageNet")
@dataclass(frozen=True)
class TopK(OfOutputs):
    """The share of samples whose label is among the k largest logits, for each of `k`."""

    k: tuple[int, ...] = (1, 3, 5)

    def __post_init__(self) -> None:
        if not self.k or min(self.k) < 1:
            raise ValueError(f"k must be 1 or more, found {self.k}")

    def fault(self, task: Task, data: Data) -> str:
        if not task.labels_rows:
            return f"'top-k' {NEEDS_LABELS.format(task.name)}"
        most = max(self.k)
        return f"k = {most} exceeds the {data.classes} classes" if most > data.classes else ""

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        lines = []
        for k in self.k:
            mine, theirs = (
                hits(*labelled_rows(outputs.task, side, outputs.y), k)
                for side in (outputs.student, outputs.teacher)
            )
            lines.append(Line.mean(f"top-{k}", mine, theirs))
        return lines, None


def hits(rows: Tensor, labels: Tensor, k: int) -> Tensor:
    """(R,) 1 where the label (R,) of a row (R, classes) is among the k largest, else 0."""
    best = rows.topk(k, dim=1).indices
    return (best == labels[:, None]).any(1).double()
