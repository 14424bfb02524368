"""Localization distillation on the distributions over an edge's places that a DFL head gives."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero


@LOSSES.register(paper="https://arxiv.org/abs/2102.12252")
class DetectionDistribution(OutputLoss):
    """T^2 KL(p_t || p_s) of each edge's distribution over `places` distances, from logits at T.

    Zheng et al. 2022, equations 2 to 4, on the heads of Generalized Focal Loss (Li et al. 2020,
    arXiv:2006.04388) and YOLOv8 to YOLO11: (4 places, positions) or (4 places, H, W), left, top,
    right and bottom one after the other. Name that output: `output = "1.boxes"`. A position counts
    by the mean of the teacher's largest probabilities to the power of `sharpness`, since a flat
    distribution says that the teacher sees no edge there (Li et al. 2021, arXiv:2011.12885); with 0
    all count alike. The mean over positions by weight, and over the four edges.
    """

    def __init__(self, temperature: float = 10.0, places: int = 16, sharpness: float = 1.0) -> None:
        above_zero(temperature=temperature)
        if places < 2:
            raise ValueError(f"places: {places} is no distribution; at least 2")
        if sharpness < 0:
            raise ValueError(f"sharpness: {sharpness} is below 0")
        super().__init__()
        self.temperature, self.places, self.sharpness = temperature, places, sharpness

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) < 2 or outputs[0] != 4 * self.places:
            raise ValueError(
                f"needs 4 x {self.places} logits at each position, found outputs {outputs}; set "
                "'places', and 'output' to that of the boxes' distributions"
            )

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        mine, theirs = self._edges(student), self._edges(teacher)
        sure = theirs.softmax(2).amax(2).mean(1) ** self.sharpness
        goal = torch.log_softmax(theirs / self.temperature, 2)
        found = torch.log_softmax(mine / self.temperature, 2)
        divergence = (goal.exp() * (goal - found)).sum(2).mean(1) * self.temperature**2
        return (sure * divergence).sum() / sure.sum()

    def _edges(self, outputs: Tensor) -> Tensor:
        """(B, 4, places, positions)"""
        return outputs.reshape(len(outputs), 4, self.places, -1)
