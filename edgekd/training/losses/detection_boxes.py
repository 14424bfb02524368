"""Box regression whose bound is the teacher: better than it is good enough."""

import torch
from torch import Tensor

from edgekd.registry import LOSSES
from edgekd.training.losses import OutputLoss, Shape, not_negative
from edgekd.training.losses._grid import answering_cells, refuse_other


@LOSSES.register(paper="https://papers.nips.cc/paper/6676")
class DetectionBoxes(OutputLoss):
    """|b_s - y|^2 where |b_s - y|^2 + `margin` > |b_t - y|^2, else 0; the mean over the boxes.

    Chen et al. 2017, equation 4: y is a target's box and b the sigmoid of the four box logits of
    the cell that answers for it. Zero where the student is better than the teacher by the margin,
    or has the target's box. Images without a target count nothing.
    """

    tasks = ("detection",)

    def __init__(self, margin: float = 0.0) -> None:
        not_negative(margin=margin)
        super().__init__()
        self.margin = margin

    def prepare(self, outputs: Shape, targets: Shape, inputs: Shape) -> None:
        refuse_other(outputs)
        if len(targets) != 2 or targets[1] != 5:
            raise ValueError(f"needs targets (class, x, y, width, height), found {targets}")

    def forward(self, student: Tensor, teacher: Tensor, targets: Tensor) -> Tensor:
        present, boxes = answering_cells(student, targets)
        mine, theirs = (
            ((side[:, 1:5].sigmoid() - boxes) ** 2).sum(1)[present] for side in (student, teacher)
        )
        worse = mine + self.margin > theirs
        return torch.where(worse, mine, 0.0).sum() / present.sum().clamp_min(1)
