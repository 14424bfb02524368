"""Offline: the teachers are frozen, the student learns from them."""

from typing import ClassVar

from torch import nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.sharding import Sharding
from edgekd.training.sharding_faults import sharding_cost, sharding_faults


@SCHEMES.register(paper="https://arxiv.org/abs/1503.02531")
class Offline(Scheme):
    """Frozen teachers, one student: label_weight * label loss + sum of weight * loss.

    Hinton et al. 2015. Several teachers' softened probabilities are averaged by their weights.
    """

    any_structure: ClassVar[bool] = True

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        return check_teaching(student, context) or sharding_faults(student, context)

    def cost(self, context: Context) -> str:
        told = f"{context.length}, learning from {context.names or 'the labels'}"
        return f"{told}{sharding_cost(context)}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        if context.teaching.shard is None:
            return SchemeResult(teach(student, context))
        sharding = Sharding()
        return SchemeResult(teach(student, context, sharding=sharding), sharding.note)
