"""Learning without forgetting: new classes are learned while old predictions are preserved."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import answer_faults
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.stages.distill.schemes._tasks import (
    Tasks,
    accuracy_by_task,
    among,
    of_task,
    task_order_faults,
)
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.logits import TeacherLogits, eval_mode
from edgekd.training.loop import Batch, fit


@SCHEMES.register(paper="https://arxiv.org/abs/1606.09282")
class LwF(Scheme):
    """Tasks arrive one after the other; the network before a task teaches the old classes.

    Li & Hoiem 2016, equation 1: label loss on the new samples + losses(z[old], z_before[old]), with
    z_before from the frozen network as it was before the task, evaluated on the *new* samples: no
    old sample is kept. The recipe's `losses` preserve the old classes (the paper: kl at temperature
    2), `label_weight` weights the new labels. `labels_among` says which classes the label loss
    compares: the "task"'s own, as with the paper's separate heads, or all "seen" so far, which
    forgets more. `tasks` are groups of classes in order; the student already knows the first
    `known` of them. No teacher is needed.
    """

    example: ClassVar[Mapping[str, Any]] = {"tasks": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]}

    tasks: Tasks = ()
    known: int = Field(default=0, ge=0)
    labels_among: Literal["seen", "task"] = "task"

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = task_order_faults(self.tasks, self.known, context, "lwf") + answer_faults(
            context, "lwf"
        )
        return faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "before")])
        )

    def cost(self, context: Context) -> str:
        count = len(self.tasks) - self.known
        return f"{context.teaching.epochs} epochs for each of {count} tasks, without the teachers"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        for number, task in enumerate(self.tasks):
            if number < self.known:
                continue
            old = tuple(label for each in self.tasks[:number] for label in each)
            now = replace(context, data=of_task(context.data, task))
            self._learn(student, now, number, task, old)
        return SchemeResult(student, accuracy_by_task(student, context.data, self.tasks))

    def _learn(
        self,
        student: nn.Module,
        context: Context,
        number: int,
        task: tuple[int, ...],
        old: tuple[int, ...],
    ) -> None:
        before = as_teacher(student, f"before task {number + 1}")
        teacher_logits = TeacherLogits(replace(context, teachers=[before], cache=None))
        comparison = Comparison(context)
        decided = task if self.labels_among == "task" else (*old, *task)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits = context.data.task.read(module, batch.x)
            weight = None if old else 1.0
            total = comparison.labels(among(logits, decided), batch, weight=weight)
            if old:
                theirs = teacher_logits.of(0, batch)[:, list(old)]
                total = total + comparison(logits[:, list(old)], theirs, batch, theirs.argmax(1))
            return total

        with eval_mode([before]):
            companions, identity = nn.ModuleList([comparison]), f"{before.key} {self!r}"
            phase = context.phase(f"task-{number + 1}")
            fit(student, loss, phase, companions=companions, identity=identity)
