"""Several classes per sample, or none."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL, Direction, Task, shape_fault
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="Tsoumakas and Katakis 2007, multi-label classification")
@dataclass(frozen=True)
class Multilabel(Task):
    """Each class is there or not: logits (B, classes), targets (B, classes) of 0 and 1, -1 where
    it is not known. A class is found where its logit is above 0.

    The score is a sample's F1: 2 TP / (2 TP + FP + FN) over its known classes, 1 if none is there
    and none is found.
    """

    metric: ClassVar[str] = "F1 over samples"
    directions: ClassVar[Mapping[str, Direction]] = {"class_accuracy": "higher"}
    moves: ClassVar[bool] = True
    smooths: ClassVar[bool] = True

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Binary cross-entropy, the mean over the known classes; smoothed targets are s / 2 and
        1 - s / 2."""
        known = y != NO_LABEL
        targets = y.clamp(min=0).to(outputs.dtype) * (1 - smoothing) + smoothing / 2
        losses = F.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        return (losses * known).sum() / known.sum().clamp(min=1)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Each sample's F1."""
        known, found, there = y != NO_LABEL, outputs > 0, y == 1
        hits = 2.0 * (found & there).sum(1).double()
        wrong = ((found != there) & known).sum(1)
        return torch.where(hits + wrong > 0, hits / (hits + wrong).clamp(min=1), 1.0)

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, classes) 1 where a class is found."""
        return (outputs > 0).long()

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The share of a sample's known classes that are right."""
        known = y != NO_LABEL
        right = ((outputs > 0) == (y == 1)) & known
        return {"class_accuracy": right.sum(1).double() / known.sum(1).clamp(min=1)}

    def classes_in(self, y: Tensor) -> int:
        """The targets' second dimension."""
        return y.shape[1]

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that aren't (N, classes) of 0, 1 and -1."""
        if y.ndim != 2 or y.shape[1] != classes:
            message = f"targets of shape {tuple(y.shape)}"
            return [InputError(message, where=where, allowed=f"(N, {classes}) of 0, 1 and -1")]
        wrong = ((y < NO_LABEL) | (y > 1)).any(1)
        if not bool(wrong.any()):
            return []
        first = int(wrong.nonzero()[0])
        message = f"the targets of sample {first} are {y[first].tolist()[:8]}"
        return [InputError(message, where=where, allowed="0, 1 and -1")]

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything other than one logit per class."""
        if isinstance(outputs, Tensor) and tuple(outputs.shape) == (len(y), classes):
            return None
        return shape_fault(outputs, f"({len(y)}, {classes}): one logit per class", where)
