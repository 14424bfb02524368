"""Whether the student looks where the teacher looks."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import Line, Networks, OfNetworks, Plot
from edgekd.measure.diagnostics._gradients import NO_GRADIENT, has_gradient
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1312.6034")
@dataclass(frozen=True)
class Attribution(OfNetworks):
    """The cosine between the student's and the teacher's saliency maps, averaged over samples.

    Simonyan et al. 2014: saliency is the magnitude of the gradient of each input value, here of the
    task's loss, on the float candidate. 1 is the same map. Two unrelated maps of positive values
    are far from 0, so `at random` gives the cosine with another sample's map for comparison.
    """

    samples: int = 500

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ValueError(f"samples must be 2 or more, found {self.samples}")

    def fault(self, task: Task, data: Data) -> str:
        if task.name == "tokens":
            return "'attribution' needs numeric inputs, not tokens"
        if data.test.paired is not None:
            return "'attribution' compares maps of one input, but the teacher sees another view"
        return ""

    def look(self, networks: Networks) -> tuple[list[Line], Plot | None]:
        test = networks.data.test.some(self.samples)
        reason = "" if networks.teacher is not None else "the teacher is a black box"
        if not reason and not has_gradient(networks.student, test):
            reason = NO_GRADIENT
        if networks.teacher is None or reason:
            return [Line(name="cosine of saliency", student=None, reason=reason)], None
        mine, theirs = saliency(networks.student, test), saliency(networks.teacher, test)
        alike = torch.cosine_similarity(mine, theirs, dim=1)
        other = torch.cosine_similarity(mine, theirs.roll(1, 0), dim=1)
        return [
            Line.mean("cosine of saliency", alike).model_copy(update={"unit": ""}),
            Line(name="at random: with another sample's map", student=float(other.mean()), unit=""),
        ], None


def saliency(network: nn.Module, samples: Samples) -> Tensor:
    """(N, values) |d loss / d x| of every sample."""
    maps = []
    for x, y in samples.batches(128):
        asked = x.clone().requires_grad_()
        loss = samples.task.label_loss(network(asked), y)
        maps.append(torch.autograd.grad(loss, asked)[0].abs().flatten(1).double())
    return torch.cat(maps)
