"""The recipe's losses between the outputs of two networks that may both be learning."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from edgekd.training.context import Context
from edgekd.training.distillation_loss import Compared, train_step_of
from edgekd.training.loop import Batch
from edgekd.training.losses import ResponseLoss
from edgekd.training.terms import Term, terms_of


class Comparison(nn.Module):
    """The weighted sum of the losses on outputs, and the label loss; a companion of the training.

    It holds the losses and their schedules as modules, so that their parameters are trained and
    checkpointed with the rest.
    """

    def __init__(self, context: Context) -> None:
        super().__init__()
        self.context = context
        terms, _ = terms_of(context.losses, context.where)
        self.terms: Sequence[Term] = [term for term in terms if term.weight]
        self.label_schedule = context.teaching.make_label_schedule()
        parts: list[nn.Module] = [term.learned for term in self.terms]
        if self.label_schedule is not None:
            parts.append(self.label_schedule)
        self.learned = nn.ModuleList(parts)

    def forward(
        self, student: Tensor, teacher: Tensor, batch: Batch, labels: Tensor | None = None
    ) -> Tensor:
        """Sum of weight * loss; no gradient reaches the teacher's outputs.

        `labels` belong to the outputs if those are not the whole batch's.
        """
        labels = batch.y if labels is None else labels
        student, teacher = student.float(), teacher.detach().float()
        compared = Compared.of(self.context.data.task, student, [teacher], labels)
        step = train_step_of(batch, len(student), compared.answers[0])
        total = student.new_zeros(())
        for term in self.terms:
            term.set_to(step)
            if isinstance(term.loss, ResponseLoss):
                value = term.loss(compared.logits, compared.answers[0], compared.labels)
            else:
                value = term.loss(student, teacher)
            label_loss = self.labels(student, batch, labels)
            total = total + term.weighted(value, step, label_loss, {None: student})
        return total

    def labels(
        self,
        student: Tensor,
        batch: Batch,
        labels: Tensor | None = None,
        weight: float | None = None,
    ) -> Tensor:
        """The task's own loss, by `label_weight` or its schedule if no weight is given."""
        teaching = self.context.teaching
        share: float | Tensor = teaching.label_weight if weight is None else weight
        if not share:
            return student.new_zeros(())
        if weight is None and self.label_schedule is not None:
            share = self.label_schedule(train_step_of(batch, len(student)))
        labels = batch.y if labels is None else labels
        return share * self.context.data.task.label_loss(
            student.float(), labels, teaching.label_smoothing
        )


def mean(values: Sequence[Tensor]) -> Tensor:
    """The mean of scalars."""
    return torch.stack(list(values)).mean()
