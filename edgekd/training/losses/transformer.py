"""Transformer distillation: embeddings, hidden states, attention matrices and logits at once."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.registry import LOSSES
from edgekd.training.losses import DepthsLoss, Shape, above_zero, not_all_zero, not_negative
from edgekd.training.losses._attention_maps import is_map


@LOSSES.register(paper="https://arxiv.org/abs/1909.10351")
class Transformer(DepthsLoss):
    """sum |W F_s - F_t|^2 + sum |A_s - A_t|^2 + T^2 KL(softmax(z_t / T) || softmax(z_s / T)).

    By the weights `hidden`, `attention` and `logits`; the mean of the elements each.

    Jiao et al. 2020 (TinyBERT), equations 7 to 11. Layers that give (L, D) or a patch embedding
    (D, H, W) are hidden states, bridged by a linear layer W shared by layers of the same widths
    (none where they agree); those that give (heads, L, L) for the same L are attention matrices, as
    the layer gives them (here usually after the softmax) and with as many heads on both sides.
    `layers = "auto"` takes the embedding, each block and each block's attention. KL stands for the
    paper's soft cross-entropy, whose gradient it has.
    """

    least = 1
    automatic = ("embedding", "block", "attention")
    needs = ("student_outputs", "teacher_outputs")

    def __init__(
        self,
        hidden: float = 1.0,
        attention: float = 1.0,
        logits: float = 1.0,
        temperature: float = 1.0,
    ) -> None:
        not_negative(hidden=hidden, attention=attention, logits=logits)
        above_zero(temperature=temperature)
        not_all_zero(hidden=hidden, attention=attention, logits=logits)
        super().__init__()
        self.hidden, self.attention, self.logits = hidden, attention, logits
        self.temperature = temperature
        self.bridges = nn.ModuleDict()
        self.maps: list[bool] = []

    def prepare(self, student: list[Shape], teacher: list[Shape]) -> None:
        lengths = {shape[0] for shape in student if len(shape) == 2}
        self.maps = [is_map(s) and (not lengths or s[1] in lengths) for s in student]
        for mine, theirs, is_attention in zip(student, teacher, self.maps, strict=True):
            if is_attention:
                if mine != theirs:
                    raise ValueError(
                        f"attention matrices {mine} and {theirs} differ in heads or length"
                    )
                continue
            (length, width), (teachers_length, teachers_width) = _tokens(mine), _tokens(theirs)
            if length != teachers_length:
                raise ValueError(f"{mine} and {theirs} have different lengths")
            if width != teachers_width:
                self.bridges[f"{width}-{teachers_width}"] = nn.Linear(width, teachers_width)

    def forward(
        self,
        student: list[Tensor],
        teacher: list[Tensor],
        *,
        student_outputs: Tensor,
        teacher_outputs: Tensor,
    ) -> Tensor:
        total = student[0].new_zeros(())
        for mine, theirs, is_attention in zip(student, teacher, self.maps, strict=True):
            if is_attention:
                total = total + self.attention * F.mse_loss(mine, theirs)
            else:
                total = total + self.hidden * self._states(_by_token(mine), _by_token(theirs))
        if not self.logits:
            return total
        mine = torch.log_softmax(student_outputs.flatten(0, -2) / self.temperature, 1)
        theirs = torch.log_softmax(teacher_outputs.flatten(0, -2) / self.temperature, 1)
        soft = F.kl_div(mine, theirs, reduction="batchmean", log_target=True)
        return total + self.logits * self.temperature**2 * soft

    def _states(self, mine: Tensor, theirs: Tensor) -> Tensor:
        key = f"{mine.shape[2]}-{theirs.shape[2]}"
        bridged = self.bridges[key](mine) if key in self.bridges else mine
        return F.mse_loss(bridged, theirs)


def _tokens(shape: Shape) -> tuple[int, int]:
    """The length and width of (L, D) or of a patch embedding (D, ...)."""
    if len(shape) == 2:
        return shape[0], shape[1]
    if len(shape) == 3:
        return shape[1] * shape[2], shape[0]
    raise ValueError(f"{shape} is neither hidden states (L, D) nor attention (heads, L, L)")


def _by_token(features: Tensor) -> Tensor:
    """(B, L, D) as it is, (B, D, H, W) -> (B, H W, D)."""
    return features if features.ndim == 3 else features.flatten(2).transpose(1, 2)
