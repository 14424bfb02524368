"""Dark experience replay: a few old samples are kept together with their logits."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.data.seeds import seeded_generator
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import one_process_faults, weighting_faults
from edgekd.stages.distill.schemes._tasks import Tasks, accuracy_by_task, of_task, task_order_faults
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.loop import Batch, fit


@SCHEMES.register(paper="https://arxiv.org/abs/2004.07211")
class DarkExperienceReplay(Scheme):
    """DER++: CE(z, y) + alpha |z' - logits'|^2 + beta CE(z'', y''), primes from the memory.

    Buzzega et al. 2020, equations 6 and 7 (`beta = 0` is DER). The memory holds `memory` samples,
    drawn by reservoir sampling from everything seen, with their labels and the logits they had when
    they were stored; |.|^2 is the mean over classes, as in the authors' code. Each step replays two
    draws of the batch size. `tasks` are groups of classes in order; the student already knows the
    first `known` of them (their samples are not in the memory). The recipe's `losses` and teachers
    are not used.
    """

    example: ClassVar[Mapping[str, Any]] = {"tasks": [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]}

    tasks: Tasks = ()
    known: int = Field(default=0, ge=0)
    memory: PositiveInt = 200
    alpha: float = Field(default=0.3, ge=0.0)
    beta: float = Field(default=0.5, ge=0.0)

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = task_order_faults(self.tasks, self.known, context, "dark-experience-replay")
        for key in ("losses", "label_weight"):
            if key in context.teaching.model_fields_set and getattr(context.teaching, key):
                message = "'dark-experience-replay' has its own loss, with alpha and beta"
                hint = "set losses = []" if key == "losses" else "leave it out"
                faults.append(InputError(message, where=f"{context.where}: {key}", hint=hint))
        faults += one_process_faults(context, "dark-experience-replay")
        faults += weighting_faults(context, "dark-experience-replay", "label_schedule")
        alone = context.with_teachers(()).with_teaching(losses=(), label_weight=1.0)
        return faults or check_teaching(student, alone)

    @property
    def reads_losses(self) -> bool:
        return False

    def cost(self, context: Context) -> str:
        count = len(self.tasks) - self.known
        kept = f"{self.memory:,} samples kept for replay, without the teachers"
        return f"{context.teaching.epochs} epochs for each of {count} tasks, {kept}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        memory = Reservoir(self.memory, tuple(context.data.example.shape[1:]), context.data.classes)
        for number, task in enumerate(self.tasks):
            if number < self.known:
                continue
            now = replace(context, data=of_task(context.data, task)).phase(f"task-{number + 1}")
            self._learn(student, memory, now, number)
        return SchemeResult(student, accuracy_by_task(student, context.data, self.tasks))

    def _learn(
        self, student: nn.Module, memory: "Reservoir", context: Context, number: int
    ) -> None:
        task, smoothing = context.data.task, context.teaching.label_smoothing

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            logits = task.read(module, batch.x)
            total = task.label_loss(logits, batch.y, smoothing)
            drawn = seeded_generator(context.seed, "replay", number, batch.step)
            if memory.held:
                x, _, then = memory.draw(len(batch.x), drawn)
                total = total + self.alpha * F.mse_loss(task.read(module, x), then)
                x, y, _ = memory.draw(len(batch.x), drawn)
                total = total + self.beta * task.label_loss(task.read(module, x), y, smoothing)
            memory.offer(batch.x, batch.y, logits, drawn)
            return total

        fit(student, loss, context, companions=memory, identity=repr(self))


class Reservoir(nn.Module):
    """A uniform sample of everything offered, in buffers, so that a checkpoint includes it.

    Vitter 1985, algorithm R: the n-th sample gets a random place among n, if the memory has it.
    """

    x: Tensor
    y: Tensor
    logits: Tensor
    offered: Tensor

    def __init__(self, size: int, shape: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.register_buffer("x", torch.zeros(size, *shape))
        self.register_buffer("y", torch.zeros(size, dtype=torch.int64))
        self.register_buffer("logits", torch.zeros(size, classes))
        self.register_buffer("offered", torch.zeros((), dtype=torch.int64))

    @property
    def held(self) -> int:
        """How many samples are in it."""
        return min(int(self.offered), len(self.y))

    def offer(self, x: Tensor, y: Tensor, logits: Tensor, drawn: torch.Generator) -> None:
        """Offer a batch, one sample after the other."""
        for number in range(len(y)):
            self.offered += 1
            count = int(self.offered)
            place = count - 1
            if count > len(self.y):
                place = int(torch.randint(count, (1,), generator=drawn))
            if place < len(self.y):
                self.x[place], self.y[place] = x[number].detach(), y[number]
                self.logits[place] = logits[number].detach()

    def draw(self, count: int, drawn: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Up to `count` different samples with their labels and stored logits."""
        chosen = torch.randperm(self.held, generator=drawn)[:count].to(self.y.device)
        return self.x[chosen], self.y[chosen], self.logits[chosen]
