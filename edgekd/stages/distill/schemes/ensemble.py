"""An ensemble of networks, trained here from the labels, whose mean teaches the student."""

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import layer_teacher_faults
from edgekd.stages.distill.schemes._networks import as_teacher, fresh, learn_labels
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.teachers import Teacher


@SCHEMES.register(paper="https://arxiv.org/abs/1503.02531")
class Ensemble(Scheme):
    """`members` networks with different seeds learn from the labels; their mean teaches.

    Hinton et al. 2015, section 3: the members' softened probabilities are averaged. Each member has
    the structure of the `student` or of the first `teacher`. With `with_teachers` the recipe's
    teachers are members too.
    """

    members: int = Field(default=3, ge=1)
    network: Literal["student", "teacher"] = "student"
    with_teachers: bool = False

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        if self.network == "teacher":
            faults = layer_teacher_faults(context, "ensemble", "copies the teacher's structure")
            if faults:
                return faults
        member = self._structure(student, context)
        also = context.teachers if self.with_teachers else ()
        return check_teaching(
            student, context.with_teachers([as_teacher(member, "member 1"), *also])
        )

    def cost(self, context: Context) -> str:
        return f"{context.length} for each of {self.members} members, then for the student"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        teachers: list[Teacher] = []
        for number in range(1, self.members + 1):
            member = fresh(self._structure(student, context), context.seed, "member", number)
            own = replace(context, seed=context.seed + number)
            learn_labels(member, own.phase(f"member-{number}"))
            teachers.append(as_teacher(member, f"member {number}"))
        if self.with_teachers:
            teachers += context.teachers
        taught = teach(student, context.with_teachers(teachers).phase("student"))
        return SchemeResult(taught, f"from an ensemble of {len(teachers)}")

    def _structure(self, student: nn.Module, context: Context) -> nn.Module:
        teacher = context.teachers[0].module if self.network == "teacher" else None
        return student if teacher is None else teacher
