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
from edgekd.stages.distill.schemes import Scheme, Situation, Taught
from edgekd.stages.distill.schemes._answers import Comparison
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults, weighting_faults
from edgekd.training.logits import Answers
from edgekd.training.loop import Batch
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

    def check(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        faults = class_faults(at, "distillation-token")
        if self.targets == "soft":
            faults += answer_faults(at, "distillation-token")
        else:
            faults += self._hard_faults(at)
            at = at.with_(label_weight=1.0)  # at 0 the teacher's classes still have all the weight
        faults = faults or at.check(student, at.teachers)
        return faults or self._head_faults(student, at)

    def _hard_faults(self, at: Situation) -> list[EdgekdError]:
        faults = weighting_faults(at, "distillation-token by hard targets", "label_schedule")
        if "losses" in at.teaching.model_fields_set and at.teaching.losses:
            message = "hard targets are classes: the loss is cross-entropy with them"
            hint = 'set losses = [], or scheme.targets = "soft"'
            faults.append(InputError(message, where=f"{at.where}: losses", hint=hint))
        if at.teaching.label_weight >= 1:
            message = "a label_weight of 1 or more leaves nothing for the teacher's classes"
            place = f"{at.where}: label_weight"
            faults.append(InputError(message, where=place, allowed="0 up to below 1"))
        if not at.teachers:
            hint = "name one under [[teachers]]"
            faults.append(InputError("there is no teacher", where=at.where, hint=hint))
        return faults

    def _head_faults(self, student: nn.Module, at: Situation) -> list[EdgekdError]:
        known, place = layer_names(student), f"{at.where}: scheme"
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
            shapes = shapes_at(student, list(names.values()), at.data.example, place)
        wanted = (at.data.classes,)
        return [
            InputError(
                f"the layer '{name}' gives {tuple(shape)}",
                where=f"{place}.{key}",
                allowed=f"{wanted}, one logit a class",
            )
            for (key, name), shape in zip(names.items(), shapes, strict=True)
            if tuple(shape) != wanted
        ]

    @property
    def reads_losses(self) -> bool:
        return self.targets == "soft"

    def cost(self, at: Situation) -> str:
        return f"{at.length}, the token learning from {at.names} by {self.targets} targets"

    def teach(self, student: nn.Module, at: Situation) -> Taught:
        comparison = Comparison(at)
        folder = at.cache or at.work / "logits"
        answers = Answers(at.teachers, at.data, folder, at.progress)
        with ExitStack() as stack:
            stack.enter_context(answers.answering())
            taps = stack.enter_context(Taps(student, [self.token, self.classes]))

            def loss(module: nn.Module, batch: Batch) -> Tensor:
                module(batch.x)
                token = taps.outputs[self.token].float()
                total: Tensor = comparison.labels(taps.outputs[self.classes], batch)
                theirs = [answers.of(number, batch) for number in range(len(at.teachers))]
                weights = torch.tensor([t.weight for t in at.teachers], device=token.device)
                if self.targets == "soft":
                    total = total + comparison(token, mixed(theirs, weights), batch)
                    return total
                chosen = mixed(theirs, weights).argmax(1)
                total = total + (1 - at.teaching.label_weight) * F.cross_entropy(token, chosen)
                return total

            keys = " ".join(f"{teacher.key}*{teacher.weight}" for teacher in at.teachers)
            at.fit(student, loss, companions=nn.ModuleList([comparison]), identity=keys)
        return Taught(student, f"{self.targets} targets for {self.token}")


def mixed(answers: list[Tensor], weights: Tensor) -> Tensor:
    """One teacher's logits as they are; of several, the log of the weighted mean probability."""
    if len(answers) == 1:
        return answers[0]
    logs = torch.log_softmax(torch.stack(answers), dim=2)
    return (logs + (weights / weights.sum()).log().view(-1, 1, 1)).logsumexp(0)
