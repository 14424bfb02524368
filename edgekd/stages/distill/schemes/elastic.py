"""One training for networks of many widths and depths, each the beginning of the next larger."""

import copy
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

MOST_BLOCKS = 0.999


@SCHEMES.register(paper="https://arxiv.org/abs/1903.05134")
class Elastic(Scheme):
    """The student is trained together with the narrower networks that it contains.

    Channels are put in the order of their importance first, so that each of the `widths` (shares of
    every layer's channels) is made of the first ones. Each step trains the whole network with the
    labels and the teachers, and by the sandwich rule the narrowest and `draws` others, which learn
    the whole network's outputs by the recipe's `losses` (Yu and Huang 2019, algorithm 1). With
    `depths` they also lack the last residual blocks of each stage: a depth is the share of the
    blocks with a plain shortcut that stay (as in Cai et al. 2020, section 3.2). A stage `prune`
    with `criterion = "nested"` and `epochs = 0` then cuts any width out, or with `granularity =
    "blocks"` any depth, without another training. Layers in `ignore` keep all channels.
    """

    widths: tuple[float, ...] = (0.25, 0.5, 0.75)
    depths: tuple[float, ...] = ()
    draws: int = Field(default=1, ge=0)
    ignore: tuple[str, ...] = ()

    @field_validator("widths")
    @classmethod
    def _ascending(cls, widths: tuple[float, ...]) -> tuple[float, ...]:
        if not widths or not all(0.0 < width < 1.0 for width in widths):
            raise ValueError("give shares of the channels between 0 and 1, such as 0.5")
        return tuple(sorted(set(widths)))

    @field_validator("depths")
    @classmethod
    def _shallow_first(cls, depths: tuple[float, ...]) -> tuple[float, ...]:
        if not all(0.0 <= depth < 1.0 for depth in depths):
            raise ValueError("give shares of the blocks from 0 to below 1, such as 0.5")
        return tuple(sorted(set(depths)))

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
        candidate, anywhere = _candidate(student, context), _any_target(context)
        smallest = [self._pruning(self.widths[0])]
        smallest += [self._dropping(depth) for depth in self.depths if depth > 0.0][:1]
        found: list[EdgekdError] = []
        for stage in smallest:
            found += stage.check(candidate, anywhere, context.where)
        return found

    def cost(self, context: Context) -> str:
        count = len(self._sizes)
        what = f"{len(self.widths) + 1} widths"
        if self.depths:
            what += f" and {len(self.depths) + 1} depths"
        return f"{context.length}, {what}, {2 + min(self.draws, count - 1)} networks in each step"

    @property
    def _sizes(self) -> list[tuple[float, float]]:
        """The (width, depth) of each smaller network, the smallest first."""
        every = [(width, depth) for depth in (*self.depths, 1.0) for width in (*self.widths, 1.0)]
        return every[:-1]

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        candidate, anywhere = _candidate(student, context), _any_target(context)
        whole: nn.Module = self._pruning(self.widths[0]).ordered(candidate, anywhere)
        whole.requires_grad_(True)
        candidate = replace(candidate, source=whole)
        parts = [self._part(candidate, anywhere, *size) for size in self._sizes]
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
        words = f"with the widths {', '.join(f'{width:g}' for width in self.widths)}"
        if self.depths:
            words += f" and the depths {', '.join(f'{depth:g}' for depth in self.depths)}"
        return SchemeResult(whole, f"{words} in it")

    def _part(self, candidate: Candidate, context: Context, width: float, depth: float) -> "Part":
        """The network of a width and a depth within the whole one."""
        smaller, kept = copy.deepcopy(candidate.module), {}
        if width < 1.0:
            smaller, kept = self._pruning(width).nested(candidate, context)
        if depth < 1.0:
            narrow = replace(candidate, source=smaller)
            smaller, _ = self._dropping(depth).nested(narrow, context)
        return Part(smaller, kept)

    def _drawn(self, parts: Sequence["Part"]) -> list["Part"]:
        """The narrowest network and some of the others, by PyTorch's own random numbers, which the
        training loop seeds for each epoch."""
        drawn = torch.randperm(len(parts) - 1)[: self.draws] + 1
        return [parts[0], *(parts[number] for number in drawn.tolist())]

    def _pruning(self, width: float) -> Any:
        """The stage that cuts a width out."""
        make = STAGES.get("prune").make
        return make(amount=1.0 - width, criterion="nested", epochs=0, ignore=self.ignore)

    def _dropping(self, depth: float) -> Any:
        """The stage that leaves the last blocks out. An amount has to be below 1: the whole of a
        stage's blocks goes with nearly 1."""
        make = STAGES.get("prune").make
        amount = min(1.0 - depth, MOST_BLOCKS)
        return make(amount=amount, granularity="blocks", criterion="nested", epochs=0)


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
