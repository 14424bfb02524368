"""Adversarial distillation: discriminators who can't tell student from teacher."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape, above_zero, not_negative


@LOSSES.register(paper="https://arxiv.org/abs/1709.00513")
class Adversarial(DepthsLoss):
    """softplus(-D(s)) + softplus(D(s*)) + softplus(-D(t)) + `penalty` |dD(t)/dt|^2 / 2.

    The first term trains the student, the others the discriminators D (s* lets no gradient through
    to it); means over the batch and the named layers.
    Xu et al. 2018, with the non-saturating loss of Goodfellow et al. 2014 and the gradient penalty
    of Mescheder et al. 2018 on the teacher's side. D is trained along: three linear layers of
    `width` on a layer's features averaged over positions, or on the outputs where no layer is
    named; a linear layer bridges widths. Each part trains its own side only. At the equilibrium the
    value is 3 ln 2.
    """

    least = 0

    def __init__(self, penalty: float = 1.0, width: int = 64) -> None:
        not_negative(penalty=penalty)
        above_zero(width=width)
        super().__init__()
        self.penalty, self.width = penalty, width
        self.bridges = nn.ModuleList()
        self.judges = nn.ModuleList()

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        self.bridges, self.judges = nn.ModuleList(), nn.ModuleList()
        for mine, theirs in zip(student, teacher, strict=True):
            inputs, outputs = _width(mine), _width(theirs)
            self.bridges.append(nn.Identity() if inputs == outputs else nn.Linear(inputs, outputs))
            self.judges.append(
                nn.Sequential(
                    nn.Linear(outputs, self.width),
                    nn.LeakyReLU(0.2),
                    nn.Linear(self.width, self.width),
                    nn.LeakyReLU(0.2),
                    nn.Linear(self.width, 1),
                )
            )

    def forward(self, student: list[Tensor], teacher: list[Tensor]) -> Tensor:
        values = [
            self._depth(judge, bridge(_vectors(mine)), _vectors(theirs))
            for mine, theirs, bridge, judge in zip(
                student, teacher, self.bridges, self.judges, strict=True
            )
        ]
        return torch.stack(values).mean()

    def _depth(self, judge: nn.Module, mine: Tensor, theirs: Tensor) -> Tensor:
        standing = {name: value.detach() for name, value in judge.named_parameters()}
        student_loss = F.softplus(-functional_call(judge, standing, (mine,))).mean()
        theirs = theirs.detach().requires_grad_(self.penalty > 0)
        real, fake = judge(theirs), judge(mine.detach())
        judge_loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        if self.penalty:
            (slope,) = torch.autograd.grad(real.sum(), theirs, create_graph=True)
            judge_loss = judge_loss + self.penalty / 2 * (slope**2).sum(1).mean()
        total: Tensor = student_loss + judge_loss
        return total


def _width(shape: Shape) -> int:
    """Of the vectors that a layer's features are averaged to: C of (C, H, W), D of (L, D)."""
    return shape[-1] if len(shape) < 3 else shape[0]


def _vectors(features: Tensor) -> Tensor:
    """(B, C, H, W), (B, L, D) or (B, D) -> (B, C or D)."""
    if features.ndim == 2:
        return features
    return features.mean(1) if features.ndim == 3 else features.flatten(2).mean(2)
