"""Feature imitation where the objects are."""

from torch import Tensor, nn

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, not_all_zero, not_negative
from edgekd.training.losses._grid import inside_boxes
from edgekd.training.losses._shapes import pooled


@LOSSES.register(paper="https://arxiv.org/abs/1906.03609")
class DetectionFeatures(FeatureLoss):
    """`foreground` mean_M |r(F_s) - F_t|^2 + `background` mean_(1-M) |r(F_s) - F_t|^2.

    Wang et al. 2019, equation 5, with M = 1 in cells whose centre lies within a target's box; the
    background's share as in Yang et al. 2022 (FGD). r is a learned 1x1 convolution if the channel
    counts differ; maps of different sizes are pooled to the smaller one.
    """

    needs = ("targets",)
    tasks = ("detection",)

    def __init__(self, foreground: float = 1.0, background: float = 0.0) -> None:
        not_negative(foreground=foreground, background=background)
        not_all_zero(foreground=foreground, background=background)
        super().__init__()
        self.foreground, self.background = foreground, background
        self.regressor: nn.Module = nn.Identity()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        if len(student) != 3 or len(teacher) != 3:
            raise ValueError(f"needs maps (C, H, W), found {student} and {teacher}")
        if student[0] != teacher[0]:
            self.regressor = nn.Conv2d(student[0], teacher[0], 1)

    def forward(self, student: Tensor, teacher: Tensor, *, targets: Tensor) -> Tensor:
        size = [min(a, b) for a, b in zip(student.shape[2:], teacher.shape[2:], strict=True)]
        guess = self.regressor(pooled(student, size))
        apart = ((guess - pooled(teacher, size)) ** 2).mean(1)
        inside = inside_boxes(targets, *size)
        total: Tensor = self.foreground * _mean(apart, inside)
        return total + self.background * _mean(apart, 1 - inside)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum() / mask.sum().clamp_min(1)
