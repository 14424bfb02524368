"""Learning without forgetting: new classes are learned while the old answers are kept."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field
from torch import Tensor, nn

from edgekd.errors import EdgekdError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, Situation, Taught
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import answer_faults
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.stages.distill.schemes._tasks import Tasks, among, of_task, task_order_faults, told
from edgekd.training.logits import Answers
from edgekd.training.loop import Batch


@SCHEMES.register(paper="https://arxiv.org/abs/1606.09282")
class LwF(Scheme):
    """Tasks come one after the other; the network before a task teaches its old classes' answers.

    Li & Hoiem 2016, equation 1: label loss on the new samples + losses(z[old], z_before[old]), with
    z_before from the frozen network as it was before the task, asked about the *new* samples: none
    of the old is kept. The recipe's `losses` are theirs (kl at temperature 2), `label_weight` the
    new labels'. `labels_among` says between which classes a label decides: the "task"'s own, as
    with the paper's separate heads, or all "seen" so far, which forgets more. `tasks` are groups of
    classes in order; the student knows the first `known` of them already. No teacher is needed.
    """

    example: ClassVar[Mapping[str, Any]] = {"tasks": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]}

    tasks: Tasks = ()
    known: int = Field(default=0, ge=0)
    labels_among: Literal["seen", "task"] = "task"

    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        faults = task_order_faults(self.tasks, self.known, at, "lwf") + answer_faults(at, "lwf")
        return faults or at.check(student, [as_teacher(student, "before")])

    def cost(self, at: Situation) -> str:
        count = len(self.tasks) - self.known
        return f"{at.teaching.epochs} epochs of each of {count} tasks, the teachers not asked"

    def teach(self, student: nn.Module, at: Situation) -> Taught:
        for number, task in enumerate(self.tasks):
            if number < self.known:
                continue
            old = tuple(label for each in self.tasks[:number] for label in each)
            now = at.with_(data=of_task(at.data, task))
            self._learn(student, now, number, task, old)
        return Taught(student, told(student, at.data, self.tasks))

    def _learn(
        self,
        student: nn.Module,
        at: Situation,
        number: int,
        task: tuple[int, ...],
        old: tuple[int, ...],
    ) -> None:
        before = as_teacher(student, f"before task {number + 1}")
        answers = Answers([before], at.data, at.work / "logits", at.progress)
        comparison = Comparison(at)
        decided = task if self.labels_among == "task" else (*old, *task)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits = module(batch.x).float()
            weight = None if old else 1.0
            total = comparison.labels(among(logits, decided), batch, weight=weight)
            if old:
                theirs = answers.of(0, batch)[:, list(old)]
                total = total + comparison(logits[:, list(old)], theirs, batch, theirs.argmax(1))
            return total

        with answers.answering():
            companions, identity = nn.ModuleList([comparison]), f"{before.key} {self!r}"
            at.fit(student, loss, f"task-{number + 1}", companions=companions, identity=identity)
