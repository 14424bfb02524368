"""Training during and after pruning."""

import copy
from collections.abc import Callable
from dataclasses import replace

from torch import nn

from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.scoring import Scores, score
from edgekd.stages.prune.spec import PruneSpec
from edgekd.training.context import Context, OnStep
from edgekd.training.distillation import teach


def train_to_the_end(
    student: nn.Module,
    context: Context,
    epochs: int,
    *,
    on_step: OnStep | None = None,
    companions: nn.Module | None = None,
) -> nn.Module:
    """Train in place without early stopping, and keep the last weights."""
    learning = context.with_teaching(epochs=epochs, keep="last", patience=None)
    return teach(student, replace(learning, on_step=on_step), companions=companions)


def recovered(
    module: nn.Module,
    context: Context,
    epochs: int,
    after_step: Callable[[nn.Module], None] | None = None,
) -> nn.Module:
    """A trained copy, with `after_step` applied to it after each step; without epochs, the module
    itself."""
    if not epochs:
        return module
    student = copy.deepcopy(module)
    learning = context.phase("recovery").with_teaching(epochs=epochs)
    if after_step is not None:
        learning = replace(learning, on_step=lambda step, total: after_step(student))
    return teach(student, learning)


def scored(
    module: nn.Module, criterion: Criterion, spec: PruneSpec, context: Context
) -> tuple[nn.Module, Scores]:
    """A copy (trained, if the criterion needs it) and the scores of its tensors."""
    judged = copy.deepcopy(module)
    for parameter in judged.parameters():
        parameter.requires_grad_(True)

    def train(student: nn.Module, companions: nn.Module) -> None:
        learning = context.phase("scoring")
        train_to_the_end(student, learning, spec.score_epochs, companions=companions)

    scores = score(
        judged,
        criterion,
        data=context.data,
        samples=spec.samples,
        seed=context.seed,
        train=train,
    )
    return judged, scores
