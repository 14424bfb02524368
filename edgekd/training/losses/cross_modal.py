"""Cross-modal distillation: two views of one thing get the same embedding."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import FeatureLoss, Shape, above_zero, not_negative
from edgekd.training.losses._shapes import Layout, channels_first, widths


@LOSSES.register(paper="https://arxiv.org/abs/1507.00448")
class CrossModal(FeatureLoss):
    """|W f_s - f_t|^2 + `contrast` (CE over rows + CE over columns of W f_s . f_t / T) / 2.

    Gupta et al. 2016, equation 1, for paired inputs: the teacher sees one modality of a sample and
    the student another. The second part (Tian et al. 2020, section 3.2; a batch of pairs as in
    CLIP) asks that each student's embedding be nearest to its own pair's, both of norm one. W is
    learned if the widths differ; maps are averaged over their positions. Zero at equality only
    without `contrast`.
    """

    accepts_outputs = True

    def __init__(
        self, contrast: float = 0.0, temperature: float = 0.07, layout: Layout = "auto"
    ) -> None:
        not_negative(contrast=contrast)
        above_zero(temperature=temperature)
        super().__init__()
        self.contrast, self.temperature = contrast, temperature
        self.layout: Layout = layout
        self.bridge: nn.Module = nn.Identity()

    def prepare(self, student: Shape, teacher: Shape) -> None:
        inputs, outputs = widths(student, teacher, self.layout)
        if inputs != outputs:
            self.bridge = nn.Linear(inputs, outputs)

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        mine, theirs = self.bridge(self._vectors(student)), self._vectors(teacher)
        total = F.mse_loss(mine, theirs)
        if not self.contrast:
            return total
        alike = F.normalize(mine, dim=1) @ F.normalize(theirs, dim=1).T / self.temperature
        own = torch.arange(len(alike), device=alike.device)
        both = F.cross_entropy(alike, own) + F.cross_entropy(alike.T, own)
        return total + self.contrast * both / 2

    def _vectors(self, features: Tensor) -> Tensor:
        """(B, ...) -> (B, channels)."""
        features = channels_first(features, self.layout)
        return features.flatten(2).mean(2) if features.ndim > 2 else features
