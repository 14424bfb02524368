"""Offline: the teachers are frozen, the student learns from them."""

from torch import nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, Situation, Taught


@SCHEMES.register(paper="https://arxiv.org/abs/1503.02531")
class Offline(Scheme):
    """Frozen teachers, one student: label_weight * label loss + sum of weight * loss.

    Hinton et al. 2015. Several teachers' softened probabilities are averaged by their weights.
    """

    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        return at.check(student, at.teachers)

    def cost(self, at: Situation) -> str:
        return f"{at.length}, learning from {at.names or 'the labels'}"

    def teach(self, student: nn.Module, at: Situation) -> Taught:
        return Taught(at.teach(student, at.teachers))
