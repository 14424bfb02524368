"""Heatmaps of keypoints: softened, and as sharp as the teacher's."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero, not_negative
from edgekd.training.losses._rows import divergence


@LOSSES.register(paper="https://arxiv.org/abs/1811.05419")
class Keypoint(OutputLoss):
    """T^2 KL(softmax(h_t / T) || softmax(h_s / T)) over the cells + `sharpness` (m_s - m_t)^2.

    Zhang et al. 2019 (fast pose distillation) compare heatmaps (B, points, H, W) directly; softened
    distributions over the cells keep where else the point may be. m is the mass of softmax(h)
    within `radius` cells of the teacher's peak. The mean over batch and points.
    """

    def __init__(
        self, temperature: float = 1.0, sharpness: float = 1.0, radius: float = 1.5
    ) -> None:
        above_zero(temperature=temperature, radius=radius)
        not_negative(sharpness=sharpness)
        super().__init__()
        self.temperature, self.sharpness, self.radius = temperature, sharpness, radius

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 3:
            raise ValueError(f"needs heatmaps (points, H, W), found outputs of shape {outputs}")

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        height, width = student.shape[2:]
        rows = [side.flatten(2).flatten(0, 1) for side in (student, teacher)]
        mine, theirs = (torch.log_softmax(each / self.temperature, 1) for each in rows)
        softened = divergence(theirs, mine).mean() * self.temperature**2
        if not self.sharpness:
            return softened
        near = _near(rows[1].argmax(1), height, width, self.radius)
        masses = [(torch.softmax(each, 1) * near).sum(1) for each in rows]
        return softened + self.sharpness * ((masses[0] - masses[1]) ** 2).mean()


def _near(peaks: Tensor, height: int, width: int, radius: float) -> Tensor:
    """Cells (R,) -> (R, H W), 1 within the radius of each."""
    cells = torch.arange(height * width, device=peaks.device)
    down = cells // width - (peaks // width).unsqueeze(1)
    across = cells % width - (peaks % width).unsqueeze(1)
    return (down**2 + across**2 <= radius**2).float()
