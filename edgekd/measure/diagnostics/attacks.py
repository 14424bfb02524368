"""How small a perturbation misleads the student."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from edgekd.data.samples import Data, Samples
from edgekd.data.tasks import Task
from edgekd.measure.diagnostics import Curve, Line, Networks, OfNetworks, Plot
from edgekd.measure.diagnostics._gradients import NO_GRADIENT, has_gradient
from edgekd.network.evaluation import predict
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/1412.6572; https://arxiv.org/abs/1706.06083")
@dataclass(frozen=True)
class Attacks(OfNetworks):
    """Accuracy under FGSM and PGD within an l_inf distance of `epsilon`, on the float candidate.

    Goodfellow et al. 2015: one step of epsilon along the gradient's sign. Madry et al. 2018:
    `steps` steps of 2.5 epsilon / steps from a random start, each projected back into the ball.
    `clip` keeps inputs within the range of the test set's values.
    """

    epsilon: float = 0.05
    steps: int = 10
    samples: int = 500
    clip: bool = True

    def __post_init__(self) -> None:
        if not self.epsilon > 0 or self.steps < 1 or self.samples < 1:
            raise ValueError("epsilon must be above 0, steps and samples 1 or more")

    def fault(self, task: Task, data: Data) -> str:
        if task.name == "tokens":
            return "'attacks' perturbs numeric inputs, not tokens"
        if data.test.paired is not None:
            return "'attacks' can't perturb two views of a sample alike"
        return ""

    def look(self, networks: Networks) -> tuple[list[Line], Plot | None]:
        test = networks.data.test.some(self.samples)
        found = {
            side: self._scores(network, test, networks.seed)
            for side, network in (("student", networks.student), ("teacher", networks.teacher))
            if network is not None and has_gradient(network, test)
        }
        mine, theirs = found.get("student", {}), found.get("teacher", {})
        names = {
            "clean": "unchanged",
            "fgsm": f"FGSM {self.epsilon:g}",
            "pgd": f"PGD {self.epsilon:g}",
        }
        lines = [
            Line.mean(text, mine.get(key), theirs.get(key), "" if mine else NO_GRADIENT)
            for key, text in names.items()
        ]
        drawn = ("clean", *map(str, STRENGTHS))
        x = (0.0, *(self.epsilon * share for share in STRENGTHS))
        curves = [
            Curve(name=side, x=x, y=tuple(float(scores[key].mean()) for key in drawn))
            for side, scores in found.items()
        ]
        return lines, Plot(x="epsilon (PGD)", y="accuracy", curves=tuple(curves))

    def _scores(self, network: nn.Module, test: Samples, seed: int) -> dict[str, Tensor]:
        low, high = (float(test.x.min()), float(test.x.max())) if self.clip else (None, None)

        def score(x: Tensor) -> Tensor:
            return test.task.score(predict(network, x), test.y)

        def attacked(epsilon: float, steps: int) -> Tensor:
            return attack(network, test, epsilon, steps, (low, high), seed)

        scores = {"clean": score(test.x), "fgsm": score(attacked(self.epsilon, 1))}
        for share in STRENGTHS:
            scores[str(share)] = score(attacked(self.epsilon * share, self.steps))
        return {**scores, "pgd": scores["1.0"]}


STRENGTHS = (0.25, 0.5, 1.0)
"""The fractions of epsilon at which the PGD curve is drawn."""


def attack(
    network: nn.Module,
    samples: Samples,
    epsilon: float,
    steps: int,
    limits: tuple[float | None, float | None],
    seed: int,
) -> Tensor:
    """Inputs (N, ...) within `epsilon` of the samples' that raise the task's loss.

    One step is FGSM, several are PGD from a random start.
    """
    x: Tensor = samples.x
    moved, size = x.clone(), epsilon
    if steps > 1:
        size = 2.5 * epsilon / steps
        generator = torch.Generator().manual_seed(seed)
        moved = x + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)
    for _ in range(steps):
        slopes = []
        for part, y in zip(torch.split(moved, 128), torch.split(samples.y, 128), strict=True):
            asked = part.detach().requires_grad_()
            loss = samples.task.label_loss(network(asked), y)
            slopes.append(torch.autograd.grad(loss, asked)[0])
        moved = moved + size * torch.cat(slopes).sign()
        moved = torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon)
        if limits[0] is not None:
            moved = moved.clamp(*limits)
    return moved.detach()
