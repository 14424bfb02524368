"""Whether predicted probabilities match the observed frequencies."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import (
    NEEDS_LABELS,
    Curve,
    Line,
    OfOutputs,
    Outputs,
    Plot,
    Unit,
    labelled_rows,
)
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1706.04599")
@dataclass(frozen=True)
class Calibration(OfOutputs):
    """Expected calibration error, overall and per class, negative log-likelihood and Brier score.

    Guo et al. 2017, equation 3, in `bins` of equal width; a class's error bins its probability
    over all samples (Nixon et al. 2019). Brier's is the sum over classes of squared differences.
    """

    bins: int = 15

    def __post_init__(self) -> None:
        if self.bins < 1:
            raise ValueError(f"bins must be 1 or more, found {self.bins}")

    def fault(self, task: Task, data: Data) -> str:
        return "" if task.labels_rows else f"'calibration' {NEEDS_LABELS.format(task.name)}"

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        sides = [
            self._numbers(*labelled_rows(outputs.task, side, outputs.y), outputs.data)
            for side in (outputs.student, outputs.teacher)
        ]
        mine, theirs = sides
        units: dict[str, Unit] = {"negative log-likelihood": "nats", "Brier score": ""}
        lines = [
            Line(name=name, student=value, teacher=theirs[name], unit=units.get(name, "share"))
            for name, value in mine.items()
        ]
        return lines, self._drawn(outputs)

    def _numbers(self, rows: Tensor, labels: Tensor, data: Data) -> dict[str, float]:
        logs = torch.log_softmax(rows, 1)
        p = logs.exp()
        sure, predicted = p.max(1)
        wanted = torch.nn.functional.one_hot(labels, p.shape[1]).double()
        names = data.labels or tuple(map(str, range(p.shape[1])))
        return {
            "calibration error": calibration_error(sure, (predicted == labels).double(), self.bins),
            "negative log-likelihood": float(-logs.gather(1, labels[:, None]).mean()),
            "Brier score": float((p - wanted).square().sum(1).mean()),
            **{
                f"calibration error, class {name}": calibration_error(
                    p[:, number], wanted[:, number], self.bins
                )
                for number, name in enumerate(names)
            },
        }

    def _drawn(self, outputs: Outputs) -> Plot:
        curves = []
        for name, side in (("student", outputs.student), ("teacher", outputs.teacher)):
            rows, labels = labelled_rows(outputs.task, side, outputs.y)
            sure, predicted = rows.softmax(1).max(1)
            x, y, _ = binned(sure, (predicted == labels).double(), self.bins)
            curves.append(Curve(name=name, x=tuple(x.tolist()), y=tuple(y.tolist())))
        return Plot(x="mean confidence", y="accuracy", curves=tuple(curves), diagonal=True)


def binned(sure: Tensor, right: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean confidence, accuracy and share of the samples of each bin that is not empty; bin m of M
    holds ((m - 1) / M, m / M]."""
    place = (torch.ceil(sure * bins) - 1).clamp(0, bins - 1).long()
    count = torch.bincount(place, minlength=bins).double()
    held = count > 0
    confidence = torch.bincount(place, sure, bins)[held] / count[held]
    correct = torch.bincount(place, right, bins)[held] / count[held]
    return confidence, correct, count[held] / len(sure)


def calibration_error(sure: Tensor, right: Tensor, bins: int) -> float:
    """The sum over bins of their share of the samples times |accuracy - confidence|."""
    confidence, correct, share = binned(sure.double(), right.double(), bins)
    return float((share * (correct - confidence).abs()).sum())
