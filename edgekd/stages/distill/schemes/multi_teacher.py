"""Several teachers at once, each with its own weight in every sample's target."""

import math
from typing import ClassVar, Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import class_faults
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.fusion import Fusion


@SCHEMES.register(paper="https://arxiv.org/abs/2201.00007")
class MultiTeacher(Scheme):
    """At least two teachers; losses on logits see the mixture sum_k w_k softmax(z_k / T).

    `mean`: w_k = 1/K. `weighted`: by the teachers' `weight` (You et al. 2017). `confidence`: by
    sample, w_k = (1 - exp(CE_k) / sum_j exp(CE_j)) / (K - 1) with CE_k the teacher's own
    cross-entropy with the label (CA-MKD, Zhang et al. 2022, equation 3). `entropy`: by sample,
    w_k in proportion to 1 / H(softmax(z_k)) (Kwon et al. 2020). `attention`: w = softmax over k of
    (A z_s + a) . (B_k z_k + b_k) / sqrt(width), all trained along (after Liu et al. 2020,
    AMTML-KD), with the cross-entropy between fused target and label, since the student's own loss
    would favour whichever teacher already agrees with it.
    """

    around: ClassVar[str] = """[[teachers]]
factory = "edgekd.models.resnet:resnet14"
arguments = { channels = 1 }
weights = "first.safetensors"

[[teachers]]
factory = "edgekd.models.resnet:resnet8"
arguments = { channels = 1 }
weights = "second.safetensors"

"""

    fusion: Literal["mean", "weighted", "confidence", "entropy", "attention"] = "confidence"
    width: PositiveInt = 32

    any_structure: ClassVar[bool] = True

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = check_teaching(student, context)
        if len(context.teachers) < 2:
            faults.append(
                InputError(
                    f"'multi-teacher' needs at least two teachers, found {len(context.teachers)}",
                    where=context.where,
                    allowed="at least two",
                    hint="list each under [[teachers]], the model too if it is to teach",
                )
            )
        if self.fusion in ("confidence", "entropy", "attention"):
            faults += class_faults(context, f"multi-teacher by {self.fusion}")
        return faults

    def cost(self, context: Context) -> str:
        return f"{context.length}, learning from {context.names} fused by {self.fusion}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        with seeded(context.seed, "fusion"):
            fusion = self._fusion(len(context.teachers), context.data.classes)
        return SchemeResult(teach(student, context, fusion=fusion), f"fused by {self.fusion}")

    def _fusion(self, teachers: int, classes: int) -> Fusion:
        if self.fusion == "attention":
            return ByAttention(teachers, classes, self.width)
        made: dict[str, type[Fusion]] = {
            "mean": Equal,
            "weighted": Fusion,
            "confidence": ByConfidence,
            "entropy": ByEntropy,
        }
        return made[self.fusion]()


class Equal(Fusion):
    """The same share for every teacher."""

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        return answers.new_full(answers.shape[:2], 1 / len(answers))


class ByConfidence(Fusion):
    """More for the teacher whose prediction is closer to the label."""

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        losses = torch.stack([F.cross_entropy(z, labels, reduction="none") for z in answers])
        shares: Tensor = (1 - torch.softmax(losses, dim=0)) / (len(answers) - 1)
        return shares


class ByEntropy(Fusion):
    """More for the more confident teacher, right or wrong."""

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        logs = torch.log_softmax(answers, dim=2)
        certainty = 1 / (-(logs.exp() * logs).sum(2)).clamp_min(1e-6)
        return certainty / certainty.sum(0)


class ByAttention(Fusion):
    """More for the teacher that the learned attention trusts for this sample."""

    def __init__(self, teachers: int, classes: int, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(classes, width)
        self.keys = nn.ModuleList(nn.Linear(classes, width) for _ in range(teachers))
        self.scale = 1 / math.sqrt(width)

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        keys = torch.stack([key(z) for key, z in zip(self.keys, answers, strict=True)])
        scores = (self.query(student) * keys).sum(2) * self.scale
        return torch.softmax(scores, dim=0)

    def own_loss(self, answers: Tensor, shares: Tensor, labels: Tensor) -> Tensor | None:
        fused = (shares.unsqueeze(2) * torch.softmax(answers, dim=2)).sum(0)
        return F.nll_loss(fused.clamp_min(1e-12).log(), labels)
