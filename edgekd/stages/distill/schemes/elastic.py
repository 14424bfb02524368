"""One training for networks of many widths, each of which is the beginning of the next larger."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.func import functional_call

from edgekd.errors import EdgekdError, InputError
from edgekd.registry import SCHEMES, STAGES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._answers import Comparison, mean
from edgekd.stages.distill.schemes._faults import answer_faults
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, identity_of
from edgekd.training.logits import TeacherLogits, eval_mode
from edgekd.training.loop import Batch, fit
from edgekd.values.candidate import Candidate
from edgekd.values.tree import Tree


@SCHEMES.register(paper="https://arxiv.org/abs/1903.05134")
class Elastic(Scheme):
    """The student is trained together with the narrower networks that it contains.

    Channels are put in the order of their importance first, so that each of the `widths` (shares of
    every layer's channels) is made of the first ones. Each step trains the whole network with the
    labels and the teachers, and by the sandwich rule the narrowest and `draws` others, which learn
    the whole network's outputs by the recipe's `losses` (Yu and Huang 2019, algorithm 1). A stage
    `prune` with `criterion = "nested"` and `epochs = 0` then cuts any width out, without another
    training. Layers in `ignore` keep all channels.
    """

    widths: tuple[float, ...] = (0.25, 0.5, 0.75)
    draws: int = Field(default=1, ge=0)
    ignore: tuple[str, ...] = ()

    @field_validator("widths")
    @classmethod
    def _ascending(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if not widths or not all(0.0 < width < 1.0 for width in widths):
            raise ValueError("give shares of the channels between 0 and 1, such as 0.5")
        return tuple(sorted(set(widths)))

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        faults = answer_faults(context, "elastic")
        if not context.teachers and not context.teaching.label_weight:
            message = "nothing teaches the whole network: there is no teacher, and no label counts"
            place = f"{context.where}: label_weight"
            faults.append(InputError(message, where=place, hint="set label_weight = 1.0"))
        faults = faults or check_teaching(
            student, context.with_teachers([as_teacher(student, "itself"), *context.teachers])
        )
        if faults:
            return faults
        narrowest, candidate = self._pruning(self.widths[0]), _candidate(student, context)
        found: list[EdgekdError] = narrowest.check(candidate, _any_target(context), context.where)
        return found

    def cost(self, context: Context) -> str:
        count = 2 + min(self.draws, len(self.widths) - 1)
        return f"{context.length}, {len(self.widths) + 1} widths, {count} of them in each step"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        candidate, anywhere = _candidate(student, context), _any_target(context)
        whole: nn.Module = self._pruning(self.widths[0]).ordered(candidate, anywhere)
        whole.requires_grad_(True)
        candidate = replace(candidate, source=whole)
        parts = [Part(*self._pruning(width).nested(candidate, anywhere)) for width in self.widths]
        comparison, logits = Comparison(context), TeacherLogits(context)
        task = context.data.task

        def loss(module: nn.Module, batch: Batch) -> Tensor:
            answer = task.read(module, batch.x)
            total = comparison.labels(answer, batch)
            theirs = [logits.of(number, batch) for number in range(len(context.teachers))]
            if theirs:
                total = total + mean([comparison(answer, each, batch) for each in theirs])
            for part in self._drawn(parts):
                total = total + comparison(task.read(part.of(module), batch.x), answer, batch)
            return total

        identity = f"{self!r} {identity_of(context.teachers)}"
        with eval_mode(context.teachers):
            fit(whole, loss, context, companions=comparison, identity=identity)
        widths = ", ".join(f"{width:g}" for width in self.widths)
        return SchemeResult(whole, f"with the widths {widths} in it")

    def _drawn(self, parts: Sequence["Part"]) -> list["Part"]:
        """The narrowest network and some of the others, by PyTorch's own random numbers, which the
        training loop seeds for each epoch."""
        drawn = torch.randperm(len(parts) - 1)[: self.draws] + 1
        return [parts[0], *(parts[number] for number in drawn.tolist())]

    def _pruning(self, width: float) -> Any:
        """The stage that cuts a width out."""
        make = STAGES.get("prune").make
        return make(amount=1.0 - width, criterion="nested", epochs=0, ignore=self.ignore)


def _candidate(student: nn.Module, context: Context) -> Candidate:
    return Candidate(student, context.data.example)


def _any_target(context: Context) -> Context:
    """The context without a target's multiple of channels: the same training serves them all."""
    return replace(context, target=context.target.model_copy(update={"channel_multiple": 1}))


class Part(nn.Module):
    """A narrower network that shares the parameters of the whole one, of which `kept` stays. Its
    batch norms have statistics of their own."""

    def __init__(self, network: nn.Module, kept: Any) -> None:
        super().__init__()
        self.network = network.train()
        self.kept = kept
        self.whole: dict[str, Tensor] = {}

    def of(self, whole: nn.Module) -> "Part":
        """This network with what a whole one has learned so far."""
        self.whole = dict(whole.named_parameters())
        first = next(iter(self.whole.values()))
        self.network.to(first.device)
        return self

    def forward(self, x: Tree) -> Any:
        """What the narrower network computes, with gradients for the whole one's parameters."""
        own = {name: self._shortened(name) for name, _ in self.network.named_parameters()}
        return functional_call(self.network, own, (x,))

    def _shortened(self, name: str) -> Tensor:
        value = self.whole[name]
        for dim, indices in self.kept.get(name, ()):
            value = value.index_select(dim, indices.to(value.device))
        return value
