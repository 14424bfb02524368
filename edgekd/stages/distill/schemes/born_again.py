"""Born-again networks: each generation is begun anew and learns from the one before."""

from typing import Literal

from pydantic import PositiveInt
from torch import nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, Situation, Taught
from edgekd.stages.distill.schemes._networks import as_teacher, fresh


@SCHEMES.register(paper="https://arxiv.org/abs/1805.04770")
class BornAgain(Scheme):
    """Generations of one structure: f_k, begun anew, learns from labels and from frozen f_(k-1).

    Furlanello et al. 2018, equation 1. f_0 learns from the labels alone, or, with
    `first = "teachers"`, from the recipe's teachers; `generations` follow, by the recipe's
    `label_weight` and `losses`, also those on layers. The last one is what is left.
    """

    generations: PositiveInt = 2
    first: Literal["labels", "teachers"] = "labels"

    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        faults = at.check(student, [as_teacher(student, "generation 0")])
        if self.first == "teachers" and not faults:
            faults += at.check(student, at.teachers)
        return faults

    def cost(self, at: Situation) -> str:
        begin = at.names if self.first == "teachers" else "the labels"
        return f"{at.length} from {begin}, then {self.generations} times from the one before"

    def teach(self, student: nn.Module, at: Situation) -> Taught:
        if self.first == "teachers":
            at.teach(student, at.teachers, "generation-0")
        else:
            at.learn_labels(student, "generation-0")
        for number in range(1, self.generations + 1):
            before = as_teacher(student, f"generation {number - 1}")
            student = fresh(student, at.seed, "generation", number)
            at.teach(student, [before], f"generation-{number}")
        return Taught(student, f"generation {self.generations}")
