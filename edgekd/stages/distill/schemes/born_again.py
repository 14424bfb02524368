"""Born-again networks: each generation is reinitialized and learns from the previous one."""

from typing import Literal

from pydantic import PositiveInt
from torch import nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._networks import as_teacher, fresh, learn_labels
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach


@SCHEMES.register(paper="https://arxiv.org/abs/1805.04770")
class BornAgain(Scheme):
    """Generations of one structure: f_k, reinitialized, learns from labels and a frozen f_(k-1).

    Furlanello et al. 2018, equation 1. f_0 learns from the labels alone or, with
    `first = "teachers"`, from the recipe's teachers; `generations` follow, with the recipe's
    `label_weight` and `losses`, including those on layers. The last generation is the result.
    """

    generations: PositiveInt = 2
    first: Literal["labels", "teachers"] = "labels"

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = check_teaching(
            student, context.with_teachers([as_teacher(student, "generation 0")])
        )
        if self.first == "teachers" and not faults:
            faults += check_teaching(student, context)
        return faults

    def cost(self, context: Context) -> str:
        begin = context.names if self.first == "teachers" else "the labels"
        more = f"{self.generations} more generations, each from the previous one"
        return f"{context.length} from {begin}, then {more}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        first = context.phase("generation-0")
        if self.first == "teachers":
            teach(student, first)
        else:
            learn_labels(student, first)
        for number in range(1, self.generations + 1):
            before = as_teacher(student, f"generation {number - 1}")
            student = fresh(student, context.seed, "generation", number)
            teach(student, context.with_teachers([before]).phase(f"generation-{number}"))
        return SchemeResult(student, f"generation {self.generations}")
