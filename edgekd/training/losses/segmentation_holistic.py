"""Holistic distillation: a critic that judges whole segmentations beside their images."""

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero, not_negative


@LOSSES.register(paper="https://arxiv.org/abs/1903.04197")
class SegmentationHolistic(OutputLoss):
    """-D(s) for the student + D(s) - D(t) + `penalty` (|dD(m) / dm| - 1)^2 for the critic D.

    Liu et al. 2019, equations 5 and 6, a conditional Wasserstein critic with the gradient penalty
    of Gulrajani et al. 2017 at a random mixture m of both. D is trained along: it reads the softmax
    over the classes beside the image, resized to the map. Each part trains its own side only; the
    value itself has no least.
    """

    needs = ("inputs",)

    def __init__(self, penalty: float = 10.0, width: int = 16) -> None:
        not_negative(penalty=penalty)
        above_zero(width=width)
        super().__init__()
        self.penalty, self.width = penalty, width
        self.critic: nn.Module = nn.Identity()

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 3 or len(inputs) != 3:
            raise ValueError(
                f"needs images (C, H, W) and logits (classes, H, W), found {inputs} and {outputs}"
            )
        self.critic = nn.Sequential(
            nn.Conv2d(outputs[0] + inputs[0], self.width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(self.width, 2 * self.width, 3, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(2 * self.width, 1),
        )

    def forward(
        self, student: Tensor, teacher: Tensor, targets: Tensor, *, inputs: Tensor
    ) -> Tensor:
        image = F.interpolate(inputs, student.shape[2:], mode="nearest")
        mine, theirs = (torch.softmax(side, 1) for side in (student, teacher))
        fake, real = (self.critic(torch.cat([m.detach(), image], 1)) for m in (mine, theirs))
        standing = {name: value.detach() for name, value in self.critic.named_parameters()}
        student_loss = -functional_call(
            self.critic, standing, (torch.cat([mine, image], 1),)
        ).mean()
        critic_loss = fake.mean() - real.mean()
        if self.penalty:
            critic_loss = critic_loss + self.penalty * self._slope(mine.detach(), theirs, image)
        total: Tensor = student_loss + critic_loss
        return total

    def _slope(self, mine: Tensor, theirs: Tensor, image: Tensor) -> Tensor:
        share = torch.rand(len(mine), 1, 1, 1, device=mine.device)
        mixed = (share * mine + (1 - share) * theirs).requires_grad_()
        judged = self.critic(torch.cat([mixed, image], 1)).sum()
        (slope,) = torch.autograd.grad(judged, mixed, create_graph=True)
        off: Tensor = ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()
        return off
