"""How a network learns while and after it loses parts: the recipe's training, data and teachers."""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from edgekd.data.samples import Data
from edgekd.stages.prune.criteria import Criterion
from edgekd.stages.prune.scoring import Scores, score
from edgekd.training.distillation import Teaching, teach
from edgekd.training.teachers import Teacher

Progress = Callable[[str, int, int], None]
OnStep = Callable[[int, int], None]


@dataclass(frozen=True)
class Recovery:
    """Trains a network in place with the teachers, and shows one to a criterion.

    `samples` is how many training samples gradients are scored on, `score_epochs` how long a
    criterion that watches a training trains before each cut. `where` names the stage in errors.
    """

    teaching: Teaching
    data: Data
    teachers: Sequence[Teacher]
    seed: int
    cache: Path
    progress: Progress
    samples: int = 512
    score_epochs: int = 1
    where: str = "prune"

    def train(
        self,
        student: nn.Module,
        epochs: int,
        work: Path,
        *,
        whole: bool = False,
        on_step: OnStep | None = None,
        companions: nn.Module | None = None,
    ) -> nn.Module:
        """So many epochs; `whole` keeps the last weights and never stops early."""
        changes: dict[str, object] = {"epochs": epochs}
        if whole:
            changes |= {"keep": "last", "patience": None}
        return teach(
            student,
            self.teaching.model_copy(update=changes),
            data=self.data,
            teachers=self.teachers,
            work=work,
            seed=self.seed,
            progress=self.progress,
            on_step=on_step,
            cache=self.cache,
            companions=companions,
            where=self.where,
        )

    def recovered(
        self, module: nn.Module, epochs: int, work: Path, on_step: Callable[[nn.Module], None]
    ) -> nn.Module:
        """A trained copy, `on_step` applied to it after each step; the module itself for none."""
        if not epochs:
            return module
        student = copy.deepcopy(module)
        return self.train(
            student, epochs, work / "recovery", on_step=lambda step, total: on_step(student)
        )

    def scored(
        self, module: nn.Module, criterion: Criterion, work: Path
    ) -> tuple[nn.Module, Scores]:
        """A copy (trained, if the criterion needs it) and the scores of its tensors."""
        scored = copy.deepcopy(module)
        for parameter in scored.parameters():
            parameter.requires_grad_(True)

        def train(student: nn.Module, companions: nn.Module) -> None:
            folder = work / "scoring"
            self.train(student, self.score_epochs, folder, whole=True, companions=companions)

        scores = score(
            scored,
            criterion,
            data=self.data,
            samples=self.samples,
            seed=self.seed,
            train=train,
        )
        return scored, scores
