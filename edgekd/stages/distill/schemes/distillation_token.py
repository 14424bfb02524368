"""DeiT's distillation token: a Transformer's second token learns from the teacher."""

from contextlib import ExitStack
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import EdgekdError, InputError
from edgekd.network.evaluation import evaluating
from edgekd.network.taps import Taps, layer_names, no_such_layer
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults, weighting_faults
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, identity_of
from edgekd.training.logits import TeacherLogits, eval_mode
from edgekd.training.loop import Batch, fit
from edgekd.training.terms import shapes_at


@SCHEMES.register(paper="https://arxiv.org/abs/2012.12877")
class DistillationToken(Scheme):
    """The class token's head learns the labels, the distillation token's head the teacher.

    Touvron et al. 2021. `hard`, equation 3: w CE(z_class, y) + (1 - w) CE(z_token, argmax z_t), w
    the recipe's `label_weight` (theirs: 0.5) and no `losses`. `soft`: w CE(z_class, y) + the
    recipe's `losses` between z_token and z_t (equation 2, theirs: kl with weight 0.1, temperature
    3). The student needs both heads as layers, named in `token` and `classes`, as
    edgekd.models.distilled_transformer:distilled_transformer has them; deployed, it gives their
    mean.
    """

    around: ClassVar[str] = """[student]
factory = "edgekd.models.distilled_transformer:distilled_transformer"
arguments = { size = 8, channels = 1, patch = 2 }

"""

    targets: Literal["hard", "soft"] = "hard"
    token: str = "distillation_head"
    classes: str = "head"

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = class_faults(context, "distillation-token")
        if self.targets == "soft":
            faults += answer_faults(context, "distillation-token")
        else:
            faults += self._hard_faults(context)
            # At 0 the teacher's classes still have all the weight.
            context = context.with_teaching(label_weight=1.0)
        faults = faults or check_teaching(student, context)
        return faults or self._head_faults(student, context)

    def _hard_faults(self, context: Context) -> list[EdgekdError]:
        faults = weighting_faults(context, "distillation-token with hard targets", "label_schedule")
        if context.teaching.losses:
            message = "hard targets are classes: the loss is the cross-entropy with them"
            hint = 'set losses = [], or scheme.targets = "soft"'
            faults.append(InputError(message, where=f"{context.where}: losses", hint=hint))
        if context.teaching.label_weight >= 1:
            message = "a label_weight of 1 or more leaves nothing for the teacher's classes"
            place = f"{context.where}: label_weight"
            faults.append(InputError(message, where=place, allowed="at least 0 and below 1"))
        if not context.teachers:
            hint = "add one under [[teachers]]"
            faults.append(InputError("there is no teacher", where=context.where, hint=hint))
        return faults

    def _head_faults(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        known, place = layer_names(student), f"{context.where}: scheme"
        names = {"token": self.token, "classes": self.classes}
        faults: list[EdgekdError] = []
        for key, name in names.items():
            if name not in known:
                fault = no_such_layer(name, known, f"{place}.{key}")
                fault.hint = fault.hint or (
                    "the student needs a distillation token, such as "
                    "edgekd.models.distilled_transformer:distilled_transformer"
                )
                faults.append(fault)
        if faults:
            return faults
        with evaluating(student):
            shapes = shapes_at(student, list(names.values()), context.data.example, place)
        wanted = (context.data.classes,)
        return [
            InputError(
                f"the layer '{name}' gives {tuple(shape)}",
                where=f"{place}.{key}",
                allowed=f"{wanted}, one logit per class",
            )
            for (key, name), shape in zip(names.items(), shapes, strict=True)
            if tuple(shape) != wanted
        ]

    @property
    def reads_losses(self) -> bool:
        return self.targets == "soft"

    def cost(self, context: Context) -> str:
        return (
            f"{context.length}, the token learning from {context.names} with {self.targets} targets"
        )

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        comparison = Comparison(context)
        teacher_logits = TeacherLogits(context)
        with ExitStack() as stack:
            stack.enter_context(eval_mode(context.teachers))
            taps = stack.enter_context(Taps(student, [self.token, self.classes]))

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                module(batch.x)
                token = taps.outputs[self.token].float()
                total: Tensor = comparison.labels(taps.outputs[self.classes], batch)
                theirs = [
                    teacher_logits.of(number, batch) for number in range(len(context.teachers))
                ]
                weights = torch.tensor([t.weight for t in context.teachers], device=token.device)
                if self.targets == "soft":
                    total = total + comparison(token, mixed(theirs, weights), batch)
                    return total
                chosen = mixed(theirs, weights).argmax(1)
                total = total + (1 - context.teaching.label_weight) * F.cross_entropy(token, chosen)
                return total

            keys = identity_of(context.teachers)
            fit(student, loss, context, companions=nn.ModuleList([comparison]), identity=keys)
        return SchemeResult(student, f"{self.targets} targets for {self.token}")


def mixed(answers: list[Tensor], weights: Tensor) -> Tensor:
    """One teacher's logits as they are; of several, the log of the weighted mean probability."""
    if len(answers) == 1:
        return answers[0]
    logs = torch.log_softmax(torch.stack(answers), dim=2)
    return (logs + (weights / weights.sum()).log().view(-1, 1, 1)).logsumexp(0)
