"""How a weight or a temperature changes while a student is trained, one way per file.

In a recipe a table stands where a number would: `temperature = { schedule = "linear", start = 8,
end = 2 }`. A schedule is an `nn.Module` that gives the value of a step from that step's `TrainStep`
alone, or from what is learned along and kept in the checkpoint, so that a training that is
interrupted and resumed sees the same values.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from edgekd.errors import InputError
from edgekd.registry import SCHEDULES
from edgekd.values.tables import build


@dataclass(frozen=True)
class TrainStep:
    """The inputs of a schedule: the `number` of the step among `total`, counted from 0; how many
    steps an epoch has; the samples in the batch over all processes; and the teacher's logits
    (R, classes), if there are any."""

    number: int = 0
    steps_per_epoch: int = 1
    total: int = 1
    batch_size: int = 1
    teacher_logits: Tensor | None = None

    @property
    def epoch(self) -> int:
        """Counted from 0."""
        return self.number // self.steps_per_epoch

    @property
    def progress(self) -> float:
        """The share of the training that is done: 0 in the first step, 1 in the last one."""
        return self.number / max(1, self.total - 1)


class Schedule(nn.Module):
    """The value of one number in each step.

    `for_weights` and `for_parameters` say what it may stand for: a loss's weight, a loss's own
    parameter. `each_sample` gives one value for each row of logits, which temperatures may be.
    """

    for_weights: ClassVar[bool] = True
    for_parameters: ClassVar[bool] = True
    each_sample: ClassVar[bool] = False

    @property
    @abstractmethod
    def bounds(self) -> tuple[float, float]:
        """The least and the largest value there can be, so that they are checked beforehand."""

    @abstractmethod
    def forward(self, step: TrainStep) -> float | Tensor:
        """The value in that step: a number, a tensor of one element, or (R, 1)."""


class Balance(nn.Module):
    """A weight that is found from the gradients of the two terms on one layer's features.

    `layer` names a layer of the student; None means its outputs.
    """

    layer: str | None

    @abstractmethod
    def forward(self, labels: Tensor, value: Tensor, features: Tensor) -> Tensor:
        """The weighted loss with the labels and the other loss, two scalars -> the weight."""


def is_scheduled(value: object) -> bool:
    """Whether a recipe's value is a schedule's table."""
    return isinstance(value, Mapping) and "schedule" in value


def schedule_of(table: Mapping[str, Any], where: str) -> Schedule | Balance:
    """The schedule that a table asks for; whatever is wrong in it is an `InputError`."""
    own = {key: value for key, value in table.items() if key != "schedule"}
    made: Schedule | Balance = build(SCHEDULES.get(str(table["schedule"]), where), own, where)
    return made


def schedule_for_weight(table: Mapping[str, Any], where: str) -> Schedule | Balance:
    """A schedule that a weight may follow: never negative, one value for the whole batch."""
    made = schedule_of(table, where)
    if isinstance(made, Balance):
        return made
    if not made.for_weights or made.each_sample:
        raise InputError(f"'{table['schedule']}' can't schedule a weight", where=where)
    if made.bounds[0] < 0 or not made.bounds[1] < float("inf"):
        raise InputError(
            f"the weight would range from {made.bounds[0]:g} to {made.bounds[1]:g}", where=where
        )
    return made


def schedule_for_parameter(table: Mapping[str, Any], where: str) -> Schedule:
    """A schedule that a loss's own parameter may follow."""
    made = schedule_of(table, where)
    if isinstance(made, Balance) or not made.for_parameters:
        name = table["schedule"]
        raise InputError(f"'{name}' balances weights and can't schedule this number", where=where)
    return made


def checked(make: Callable[..., Any], schedule: Schedule, key: str, where: str) -> Any:
    """What `make(key=value)` gives for the least and the largest value, both of which must do."""
    made = None
    for bound in schedule.bounds:
        try:
            made = make(**{key: bound})
        except ValueError as error:
            raise InputError(str(error), where=where) from None
    return made


def plain(value: float | Tensor) -> float:
    """The mean of a scheduled value, to be shown."""
    return float(value.detach().mean()) if isinstance(value, torch.Tensor) else float(value)
