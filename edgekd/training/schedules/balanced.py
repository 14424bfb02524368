"""A weight with which a loss pulls the features as strongly as the labels do."""

import torch
from torch import Tensor

from edgekd.registry import SCHEDULES
from edgekd.training.schedules import Balance


@SCHEDULES.register()
class Balanced(Balance):
    """w = share |dL_labels / dF| / |dL / dF|, at most `most`; L_labels already has its weight.

    F are the outputs of the student's `layer`, or the student's own. With `share = 1` both terms'
    gradients on F have equal norm in every step. Where the loss has no gradient, w is `most`.
    """

    def __init__(self, layer: str | None = None, share: float = 1.0, most: float = 100.0) -> None:
        if not share > 0 or not most > 0:
            raise ValueError(f"share and most must be above 0, found {share} and {most}")
        super().__init__()
        self.layer, self.share, self.most = layer, share, most

    def forward(self, labels: Tensor, value: Tensor, features: Tensor) -> Tensor:
        first, second = (_gradient_norm(each, features) for each in (labels, value))
        weight: Tensor = (self.share * first / second.clamp_min(1e-12)).clamp_max(self.most)
        return weight


def _gradient_norm(loss: Tensor, features: Tensor) -> Tensor:
    if not loss.requires_grad:
        return features.new_zeros(())
    (gradient,) = torch.autograd.grad(loss, features, retain_graph=True, allow_unused=True)
    norm: Tensor = features.new_zeros(()) if gradient is None else gradient.detach().norm()
    return norm
