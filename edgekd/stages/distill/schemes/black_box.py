"""A black-box teacher: only its logits, in half precision, or its predicted classes are used."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._faults import answer_faults, class_faults, weighting_faults
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.logits import eval_mode
from edgekd.training.teachers import Teacher
from edgekd.values.tree import OutputName, Tree

STORAGE = {"fp16": torch.float16, "fp32": torch.float32}

SURE = 1e4
"""A logit so far above the others that softmax gives exactly one at every usual temperature."""


@SCHEMES.register(paper="https://arxiv.org/abs/1503.02531")
class BlackBox(Scheme):
    """Learn from a teacher's recorded outputs only, even if its layers are available.

    `answers = "logits"`: the recipe's `losses` on the logits, stored in `storage`. "labels": only
    the teacher's predicted class is known, and the loss is label_weight * CE(z, y) +
    (1 - label_weight) * CE(z, argmax z_t), the hard labels of Hinton et al. 2015, section 2 as
    T -> 0 (several teachers vote by their weights). Losses that read layers are rejected even if
    the teacher has layers, so that a recipe can be tried before the teacher becomes a service.
    """

    answers: Literal["logits", "labels"] = "logits"
    storage: Literal["fp16", "fp32"] = "fp16"

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        if self.answers == "logits":
            return answer_faults(context, "black-box") or check_teaching(student, context)
        faults = class_faults(context, "black-box with labels")
        faults += weighting_faults(context, "black-box with labels", "label_schedule")
        if context.teaching.losses:
            message = (
                "labels have no logits to compare: the loss is the cross-entropy with the labels"
            )
            hint = 'set losses = [], or scheme.answers = "logits"'
            faults.append(InputError(message, where=f"{context.where}: losses", hint=hint))
        if context.teaching.label_weight >= 1:
            message = "a label_weight of 1 or more leaves nothing for the teacher's labels"
            place = f"{context.where}: label_weight"
            faults.append(InputError(message, where=place, allowed="at least 0 and below 1"))
        return faults or check_teaching(student, self._hard(context))

    @property
    def reads_losses(self) -> bool:
        return self.answers == "logits"

    def cost(self, context: Context) -> str:
        kept = (
            "predicted classes" if self.answers == "labels" else f"logits stored in {self.storage}"
        )
        return f"{context.length}, learning from {context.names}: {kept}"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        if self.answers == "logits":
            taught = teach(student, context, storage=STORAGE[self.storage])
            return SchemeResult(taught, f"from logits in {self.storage}")
        teachers = [ChosenClass(teacher) for teacher in context.teachers]
        with eval_mode(context.teachers):
            taught = teach(student, self._hard(context).with_teachers(teachers))
        return SchemeResult(taught, "from predicted classes only")

    def _hard(self, context: Context) -> Context:
        share = 1 - context.teaching.label_weight
        return context.with_teaching(losses=({"name": "kl", "temperature": 1.0, "weight": share},))


@dataclass(frozen=True)
class ChosenClass:
    """A teacher that is reduced to its predicted class; KL at T = 1 then is CE with that class."""

    teacher: Teacher

    @property
    def name(self) -> str:
        """The teacher's."""
        return self.teacher.name

    @property
    def key(self) -> str:
        """The key of the teacher, marked."""
        return f"{self.teacher.key}-chosen-class"

    @property
    def weight(self) -> float:
        """The teacher's."""
        return self.teacher.weight

    @property
    def module(self) -> nn.Module | None:
        """None, as for every black box."""
        return None

    def logits(self, x: Tree, output: OutputName = None) -> Tensor:
        """(B, classes), one of them with probability one."""
        answers = self.teacher.logits(x)
        return SURE * F.one_hot(answers.argmax(1), answers.shape[1]).float()
