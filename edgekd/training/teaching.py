"""The settings of a training: how long and how it runs, and what the teachers contribute."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from edgekd.errors import InputError
from edgekd.training.sample_weights import SampleWeights
from edgekd.training.schedules import Balance, Schedule, is_scheduled, schedule_for_weight
from edgekd.values.tables import Value


class Training(Value):
    """How long and how a module is trained.

    `batch_size` is the whole batch over all processes. `warmup` is the share of all steps in which
    the learning rate rises. `patience` ends the training after that many epochs without a better
    validation accuracy. `weight_decay` applies to matrices and kernels, never to biases and norms.
    `keep` returns the weights of the best validation accuracy (the latest of equals) or the last
    ones. `partial_batch` drops or keeps an epoch's smaller last batch; a batch that is the whole
    set is always kept. `shard` divides the student, the teachers or all of them over the processes
    of `torchrun`, so that each holds a share of their parameters.
    """

    epochs: PositiveInt = 10
    batch_size: PositiveInt = 128
    learning_rate: PositiveFloat = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: float = Field(default=0.9, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=1e-4, ge=0.0)
    warmup: float = Field(default=0.05, ge=0.0, lt=1.0)
    schedule: Literal["cosine", "constant", "linear"] = "cosine"
    patience: PositiveInt | None = None
    clip_gradient: PositiveFloat | None = None
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    keep: Literal["best", "last"] = "best"
    partial_batch: Literal["drop", "keep"] = "drop"
    shard: Literal["student", "teachers", "all"] | None = None


class Teaching(Training):
    """A training with teachers: label_weight * cross-entropy + sum of weight * loss.

    Each table of `losses` has the loss's `name`, its `weight` (default 1), for losses on features
    the `student` and `teacher` layers (if only one is given, both sides use it), and the loss's
    own parameters. Features come from the first teacher that is not a black box, or from the one
    that `network` names. The softened probabilities of several teachers are averaged by their
    weights before a loss on logits sees them.

    Without `losses` it is the loss that the task names: `Context.losses`.

    A number in a loss's table, its weight and `label_weight` may be a schedule's table (which is
    kept as `label_schedule`). `sample_weights` gives more weight to samples of rare classes, or to
    those on which teacher and student disagree. With `calibrate_teachers` each teacher's logits
    are first divided by the temperature that fits the validation samples.
    """

    label_weight: float = Field(default=0.1, ge=0.0)
    label_schedule: dict[str, Any] | None = None
    sample_weights: SampleWeights = "equal"
    calibrate_teachers: bool = False
    losses: tuple[dict[str, Any], ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _scheduled(cls, table: Any) -> Any:
        if not isinstance(table, dict) or not is_scheduled(table.get("label_weight")):
            return table
        given = table["label_weight"]
        return {**table, "label_weight": _label_schedule(given).bounds[1], "label_schedule": given}

    def make_label_schedule(self) -> Schedule | None:
        """A new schedule for `label_weight`, or None if the weight is constant."""
        return None if self.label_schedule is None else _label_schedule(self.label_schedule)


class Recovery(Teaching):
    """A teaching after a change of the network, which `epochs = 0` leaves out."""

    epochs: int = Field(default=10, ge=0)


def _label_schedule(table: dict[str, Any]) -> Schedule:
    made = schedule_for_weight(table, "label_weight")
    if isinstance(made, Balance):
        hint = "balance the weight of a loss instead: it is measured against the labels' loss"
        raise InputError("the labels' weight can't be balanced", where="label_weight", hint=hint)
    return made
