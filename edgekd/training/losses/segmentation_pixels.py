"""Pixel by pixel, or channel by channel, as one distribution each."""

from typing import Literal

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero
from edgekd.training.losses._rows import divergence


@LOSSES.register(paper="https://arxiv.org/abs/1903.04197")
class SegmentationPixels(OutputLoss):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)), the mean over pixels, or over classes.

    `over = "classes"`: each pixel's distribution over the classes, Liu et al. 2019, equation 2.
    `over = "positions"`: each class's distribution over the image, channel-wise distillation, Shu
    et al. 2021, equation 3. Logits (B, classes, H, W); every pixel counts, also unlabelled ones.
    """

    def __init__(
        self, over: Literal["classes", "positions"] = "classes", temperature: float = 1.0
    ) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.over, self.temperature = over, temperature

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 3:
            raise ValueError(f"needs logits (classes, H, W), found outputs of shape {outputs}")

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        mine, theirs = (torch.log_softmax(self._rows(side), 1) for side in (student, teacher))
        return divergence(theirs, mine).mean() * self.temperature**2

    def _rows(self, logits: Tensor) -> Tensor:
        if self.over == "positions":
            return logits.flatten(2).flatten(0, 1) / self.temperature
        return logits.movedim(1, -1).flatten(0, -2) / self.temperature
