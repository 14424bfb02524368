"""How closely the student follows the teacher."""

from dataclasses import dataclass

import torch
from torch import Tensor

from edgekd.measure.diagnostics import Line, OfOutputs, Outputs, Plot
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="https://arxiv.org/abs/2106.05945")
@dataclass(frozen=True)
class Fidelity(OfOutputs):
    """Agreement with the teacher, and KL(teacher || student) of the probabilities at T = 1.

    Stanton et al. 2021: a student may be as accurate as its teacher and still not follow it. For
    outputs that are not class logits, the root mean squared difference takes the place of the
    divergence.
    """

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        task = outputs.task
        agreement = task.agreement(outputs.student, outputs.teacher)
        lines = [Line.mean("agreement with the teacher", agreement)]
        mine, theirs = task.rows(outputs.student), task.rows(outputs.teacher)
        if mine is None or theirs is None:
            apart = (outputs.student.double() - outputs.teacher.double()).square().mean().sqrt()
            lines.append(Line(name="root mean squared difference", student=float(apart), unit=""))
        else:
            found = divergence(mine, theirs)
            lines.append(Line(name="KL(teacher || student)", student=found, unit="nats"))
        return lines, None


def divergence(student: Tensor, teacher: Tensor) -> float:
    """The mean over rows (R, classes) of KL(softmax(t) || softmax(s)), in nats."""
    theirs, mine = (torch.log_softmax(side.double(), 1) for side in (teacher, student))
    return float((theirs.exp() * (theirs - mine)).sum(1).mean())
