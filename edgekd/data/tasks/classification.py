"""One class per sample: the default."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from edgekd.data.tasks import (
    NO_LABEL,
    Task,
    classes_hint,
    integer_faults,
    mean_cross_entropy,
    shape_fault,
)
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="top-1 accuracy")
@dataclass(frozen=True)
class Classification(Task):
    """One class per sample: logits (B, classes), labels (B,); the score is top-1.

    A training sample with label -1 has none: only losses against teachers see it.
    """

    metric: ClassVar[str] = "top-1"
    moves: ClassVar[bool] = True
    smooths: ClassVar[bool] = True
    has_rows: ClassVar[bool] = True
    labels_rows: ClassVar[bool] = True

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, the mean over the samples that have a label."""
        return mean_cross_entropy(outputs, y, smoothing)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """1 where the largest logit is at the label."""
        return (outputs.argmax(1) == y).double()

    def decode(self, outputs: Tensor) -> Tensor:
        """(B,) the class of the largest logit."""
        return outputs.argmax(1)

    def rows(self, outputs: Tensor) -> Tensor | None:
        """The logits themselves."""
        return outputs

    def row_labels(self, y: Tensor) -> Tensor | None:
        """The labels themselves."""
        return y

    def strata(self, y: Tensor) -> Tensor:
        """The classes."""
        return y

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Labels that aren't (N,) integers from 0 to below `classes`, or `NO_LABEL`."""
        return integer_faults(y, 1, classes, NO_LABEL, where)

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything other than one logit per class."""
        if isinstance(outputs, Tensor) and tuple(outputs.shape) == (len(y), classes):
            return None
        hint = classes_hint(outputs, 1, classes)
        return shape_fault(outputs, f"({len(y)}, {classes}): one logit per class", where, hint)


CLASSIFICATION: Task = Classification()
"""The task of data that names no other."""
