"""How noise, dimming and blur affect a deployed file."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.samples import Data
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import Line, OfOutputs, Outputs, Plot
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1903.12261")
@dataclass(frozen=True)
class Corruptions(OfOutputs):
    """Accuracy of the deployed file on corrupted test inputs, compared with the teacher's.

    After Hendrycks & Dietterich 2019, with corruptions that apply to any input: Gaussian noise,
    values lost (set to 0), contrast halved around the mean, and for images a 3 x 3 blur. `severity`
    scales each; noise is in standard deviations of the inputs.
    """

    severity: float = 1.0
    samples: int = 1000

    def __post_init__(self) -> None:
        if not self.severity > 0 or self.samples < 1:
            raise ValueError("severity must be above 0, and samples 1 or more")

    def fault(self, task: Task, data: Data) -> str:
        if task.name == "tokens":
            return "'corruptions' changes numeric inputs, not tokens"
        if data.test.paired is not None:
            return "'corruptions' can't change two views of a sample alike"
        return ""

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        test = outputs.data.test.some(self.samples)
        x, y = test.x, test.y
        lines = [self._line("unchanged", x, y, outputs)]
        for name, change in corruptions(x, self.severity).items():
            lines.append(self._line(name, change(x), y, outputs))
        return lines, None

    def _line(self, name: str, x: Tensor, y: Tensor, outputs: Outputs) -> Line:
        mine, theirs = (outputs.task.score(act(x), y) for act in (outputs.run, outputs.teach))
        return Line.mean(name, mine, theirs)


def corruptions(like: Tensor, severity: float) -> dict[str, Callable[[Tensor], Tensor]]:
    """The corruptions of inputs (N, ...) of this shape, by name; the same in every run."""
    spread, middle = like.std(), like.mean()

    def noise(x: Tensor) -> Tensor:
        drawn = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        return x + 0.3 * severity * spread * drawn

    def lost(x: Tensor) -> Tensor:
        drawn = torch.rand(x.shape, generator=torch.Generator().manual_seed(1))
        return torch.where(drawn < min(1.0, 0.1 * severity), 0.0, x)

    def contrast(x: Tensor) -> Tensor:
        return middle + (x - middle) * math.pow(0.5, severity)

    def blur(x: Tensor) -> Tensor:
        padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
        share = min(1.0, severity)
        return (1 - share) * x + share * F.avg_pool2d(padded, 3, 1)

    found: dict[str, Callable[[Tensor], Tensor]]
    found = {"noise": noise, "values lost": lost, "contrast": contrast}
    return {**found, "blur": blur} if like.ndim == 4 else found
