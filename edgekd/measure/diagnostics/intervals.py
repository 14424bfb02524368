"""How certain the accuracies are, and whether the student's could equal the teacher's."""

from dataclasses import dataclass

from edgekd.measure.diagnostics import Line, OfOutputs, Outputs, Plot
from edgekd.measure.resampling import interval, means
from edgekd.registry import DIAGNOSTICS


@DIAGNOSTICS.register(paper="Efron 1979, bootstrap methods")
@dataclass(frozen=True)
class Intervals(OfOutputs):
    """Bootstrap intervals of both accuracies, and whether the student's covers the teacher's value.

    Percentile intervals at 95 % from `draws` resamples. An interval that covers the value does not
    prove that both are equal; one that does not shows a difference that chance doesn't explain.
    """

    draws: int = 1000

    def __post_init__(self) -> None:
        if self.draws < 100:
            raise ValueError(f"draws must be 100 or more, found {self.draws}")

    def look(self, outputs: Outputs) -> tuple[list[Line], Plot | None]:
        mine = outputs.task.score(outputs.student, outputs.y)
        theirs = outputs.task.score(outputs.teacher, outputs.y)
        point = float(theirs.mean())
        sides = [means(side.double().numpy(), self.draws) for side in (mine, theirs)]
        (low, high), (teacher_low, teacher_high) = map(interval, sides)
        return [
            Line(
                name="accuracy",
                student=float(mine.mean()),
                teacher=point,
                ci=(low, high),
                teacher_ci=(teacher_low, teacher_high),
            ),
            Line(name="lower end of the interval", student=low, teacher=teacher_low),
            Line(name="upper end of the interval", student=high, teacher=teacher_high),
            Line(
                name="the student's interval covers the teacher's accuracy (1: yes)",
                student=float(low <= point <= high),
                unit="",
            ),
        ], None
