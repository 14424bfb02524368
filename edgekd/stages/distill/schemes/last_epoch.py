"""The previous epoch teaches this one: targets between labels and earlier predictions."""

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import (
    answer_faults,
    class_faults,
    one_process_faults,
    weighting_faults,
)
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching
from edgekd.training.loop import Batch, fit


@SCHEMES.register(paper="https://arxiv.org/abs/2006.12000")
class LastEpoch(Scheme):
    """PS-KD: in epoch t of E the loss is (1 - a_t) CE(z, y) + a_t * losses(z, z of epoch t - 1).

    Kim et al. 2021, equations 4 and 5, with a_t = `share` * t / E, t from 1; with kl at temperature
    1 and weight 1 it is their cross-entropy with (1 - a_t) y + a_t p_(t-1), up to a constant. The
    targets are the network's logits from the previous epoch, stored per sample. A sample without
    any (in the first epoch, or dropped with a partial batch) learns from its label alone.
    `label_weight` is not used: a_t takes its place. No teacher is needed.
    """

    share: float = Field(default=0.8, gt=0.0, le=1.0)

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = answer_faults(context, "last-epoch") + class_faults(context, "last-epoch")
        faults += one_process_faults(context, "last-epoch")
        faults += weighting_faults(context, "last-epoch", "label_schedule")
        if "label_weight" in context.teaching.model_fields_set:
            message = "'last-epoch' sets the weight of the labels itself, epoch by epoch"
            hint = (
                "remove label_weight; scheme.share is the final weight of the earlier predictions"
            )
            faults.append(InputError(message, where=f"{context.where}: label_weight", hint=hint))
        if context.teaching.epochs < 2:
            message = "a single epoch has no previous epoch"
            where = f"{context.where}: epochs"
            faults.append(InputError(message, where=where, allowed="at least two"))
        return faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "the last epoch")])
        )

    def cost(self, context: Context) -> str:
        return f"{context.length}, learning from its own previous epoch"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        comparison = Comparison(context)
        memory = Memory(len(context.data.train), context.data.classes)

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            answers = context.data.task.read(module, batch.x)
            epoch = batch.step // batch.steps
            share = self.share * (epoch + 1) / context.teaching.epochs
            before, known = memory.recall(batch.index)
            memory.keep(batch.index, answers)
            label = comparison.labels(answers, batch, weight=1.0)
            if not bool(known.any()):
                return label
            kept = comparison(answers[known], before[known], batch, batch.y[known])
            part = share * float(known.float().mean())
            rest = comparison.labels(answers[known], batch, batch.y[known], weight=part)
            total: Tensor = label - rest + part * kept
            return total

        fit(student, loss, context, companions=nn.ModuleList([comparison, memory]))
        return SchemeResult(student)


class Memory(nn.Module):
    """The latest logits of each training sample, in buffers, so that a checkpoint has them."""

    answers: Tensor
    known: Tensor

    def __init__(self, samples: int, classes: int) -> None:
        super().__init__()
        self.register_buffer("answers", torch.zeros(samples, classes))
        self.register_buffer("known", torch.zeros(samples, dtype=torch.bool))

    def recall(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """(B, classes) and (B,): the logits, and whether there are any."""
        index = index.to(self.answers.device)
        return self.answers[index], self.known[index]

    def keep(self, index: Tensor, answers: Tensor) -> None:
        """Replace the logits of these samples."""
        index = index.to(self.answers.device)
        self.answers[index] = answers.detach()
        self.known[index] = True
