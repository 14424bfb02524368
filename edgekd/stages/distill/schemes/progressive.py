"""Progressive: teacher to assistants to student, each step a smaller one."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from edgekd.data.seeds import seeded
from edgekd.errors import EdgekdError, InputError
from edgekd.network.load import load_network, network_key
from edgekd.registry import SCHEMES
from edgekd.stages.distill.schemes import Scheme, SchemeResult
from edgekd.stages.distill.schemes._networks import as_teacher
from edgekd.training.context import Context
from edgekd.training.distillation import check_teaching, teach
from edgekd.training.fusion import Fusion
from edgekd.training.teachers import Teacher
from edgekd.values.recipe import Network


@SCHEMES.register(paper="https://arxiv.org/abs/1902.03393")
class Progressive(Scheme):
    """Assistants of intermediate sizes: each learns from its predecessor, the student too.

    Mirzadeh et al. 2020 (teacher assistants); every step has the recipe's `label_weight` and
    `losses`. With `dense` each learns from all its predecessors (Son et al. 2021, densely guided
    distillation); `drop` is the probability with which each of them is left out of a step (their
    stochastic DGKD); at least one stays, and those that stay share its part. `assistants` are
    networks, from large to small, as in [student]: `{ factory = "package.module:callable",
    arguments = { ... } }`.
    """

    example: ClassVar[Mapping[str, Any]] = {
        "assistants": [{"factory": "edgekd.models.resnet:resnet8", "arguments": {"channels": 1}}]
    }

    assistants: tuple[Network, ...] = Field(default=())
    dense: bool = False
    drop: float = Field(default=0.0, ge=0.0, lt=1.0)

    def check(self, student: nn.Module, context: Context) -> list[EdgekdError]:
        if not self.assistants:
            hint = 'assistants = [{ factory = "package.module:callable" }]'
            message = "there is no assistant between teacher and student"
            place = f"{context.where}: scheme.assistants"
            return [InputError(message, where=place, hint=hint)]
        if self.drop and not self.dense:
            message = "each step has a single teacher, so none can be left out"
            place = f"{context.where}: scheme.drop"
            return [InputError(message, where=place, hint="set dense = true")]
        faults: list[EdgekdError] = []
        teachers = list(context.teachers)
        for number, network in enumerate(self.assistants, 1):
            place = f"{context.where}: scheme.assistants.{number}"
            try:
                assistant = _load(network, number, context, place)
            except InputError as fault:
                return [*faults, *getattr(fault, "faults", (fault,))]
            faults += check_teaching(assistant, replace(context, where=place, teachers=teachers))
            before = as_teacher(assistant, f"assistant {number}")
            teachers = [*teachers, before] if self.dense else [before]
        return faults or check_teaching(student, context.with_teachers(teachers))

    def content(self, folder: Path) -> str:
        return " ".join(network_key(network, folder) for network in self.assistants)

    def cost(self, context: Context) -> str:
        count = len(self.assistants)
        names = f"{count} assistant{'s' * (count > 1)}"
        first = context.names or "the labels"
        return f"{context.length}, {count + 1} times: {first}, {names}, student"

    def teach(self, student: nn.Module, context: Context) -> SchemeResult:
        teachers: list[Teacher] = list(context.teachers)
        for number, network in enumerate(self.assistants, 1):
            assistant = _load(network, number, context, context.where)
            phase = context.with_teachers(teachers).phase(f"assistant-{number}")
            teach(assistant, phase, fusion=self._fusion())
            before = as_teacher(assistant, f"assistant {number}")
            teachers = [*teachers, before] if self.dense else [before]
        phase = context.with_teachers(teachers).phase("student")
        taught = teach(student, phase, fusion=self._fusion())
        return SchemeResult(taught, f"through {len(self.assistants)} assistants")

    def _fusion(self) -> Fusion | None:
        return Dropping(self.drop) if self.drop else None


class Dropping(Fusion):
    """The teachers' weights, with some teachers randomly left out of a step."""

    def __init__(self, chance: float) -> None:
        super().__init__()
        self.chance = chance

    def shares(self, answers: Tensor, weights: Tensor, student: Tensor, labels: Tensor) -> Tensor:
        drawn = torch.rand(len(answers))
        stays = (drawn >= self.chance) | (drawn == drawn.max())
        return super().shares(answers, weights * stays.to(weights.device), student, labels)


def _load(network: Network, number: int, context: Context, where: str) -> nn.Module:
    with seeded(context.seed, "assistant", number):
        return load_network(network, context.folder, where)
