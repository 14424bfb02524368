"""Frame-wise distillation of a network that is trained by connectionist temporal classification."""

from typing import Literal

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, above_zero
from edgekd.training.losses._rows import divergence, softened


@LOSSES.register(paper="https://arxiv.org/abs/1809.06833")
class CTC(OutputLoss):
    """T^2 KL(softmax(z_t / T) || softmax(z_s / T)) of each frame, the blank among its classes.

    Ghorbani et al. 2018, section 3: logits (B, frames, classes); the mean over the frames that
    count. With `padding = "zeros"` frames do not count whose share of the input lies in the
    zeros at the end of its last dimension; otherwise all do.
    """

    needs = ("inputs",)

    def __init__(
        self, temperature: float = 1.0, padding: Literal["none", "zeros"] = "none"
    ) -> None:
        above_zero(temperature=temperature)
        super().__init__()
        self.temperature, self.padding = temperature, padding

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        if len(outputs) != 2:
            raise ValueError(f"needs logits (frames, classes), found outputs of shape {outputs}")

    def forward(
        self, student: Tensor, teacher: Tensor, targets: Tensor, *, inputs: Tensor
    ) -> Tensor:
        mine = softened(student.flatten(0, 1), self.temperature)
        theirs = softened(teacher.flatten(0, 1), self.temperature)
        values = divergence(theirs, mine) * self.temperature**2
        if self.padding == "none":
            return values.mean()
        counted = counted_frames(inputs, student.shape[1]).flatten()
        return (values * counted).sum() / counted.sum().clamp_min(1)


def counted_frames(inputs: Tensor, frames: int) -> Tensor:
    """(B, ..., length) -> (B, frames), 1 for frames before the zeros at the end of the input."""
    busy = (inputs != 0).flatten(1, -2).any(1) if inputs.ndim > 2 else inputs != 0
    places = torch.arange(1, busy.shape[1] + 1, device=inputs.device)
    lengths = (busy * places).amax(1, keepdim=True)
    used = torch.ceil(lengths * frames / busy.shape[1])
    return (torch.arange(frames, device=inputs.device) < used).float()
