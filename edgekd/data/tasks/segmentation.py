"""One class per pixel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.data.tasks import (
    NO_LABEL,
    Direction,
    Task,
    classes_hint,
    integer_faults,
    mean_cross_entropy,
    shape_fault,
)
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="Everingham et al. 2010, Pascal VOC")
@dataclass(frozen=True)
class Segmentation(Task):
    """One class per pixel: logits (B, classes, H, W), labels (B, H, W), -1 for an unlabelled pixel.

    The score is an image's intersection over union, the mean over the classes that its labels or
    its prediction have.
    """

    metric: ClassVar[str] = "mean IoU"
    directions: ClassVar[Mapping[str, Direction]] = {"pixel_accuracy": "higher"}
    smooths: ClassVar[bool] = True
    has_rows: ClassVar[bool] = True
    labels_rows: ClassVar[bool] = True

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy, the mean over the labelled pixels."""
        rows, labels = self.rows(outputs), self.row_labels(y)
        return mean_cross_entropy(rows, labels, smoothing)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Each image's mean intersection over union; 1 if nothing is labelled."""
        predicted, classes = outputs.argmax(1).flatten(1), outputs.shape[1]
        truth = y.flatten(1)
        known = truth != NO_LABEL
        shared, either = [], []
        for label in range(classes):
            mine, theirs = (predicted == label) & known, (truth == label) & known
            shared.append((mine & theirs).sum(1))
            either.append((mine | theirs).sum(1))
        overlap, union = torch.stack(shared, 1).double(), torch.stack(either, 1).double()
        present = union > 0
        shares = torch.where(present, overlap / union.clamp(min=1), 0.0)
        count = present.sum(1)
        return torch.where(count > 0, shares.sum(1) / count.clamp(min=1), 1.0)

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, H, W) the class of each pixel's largest logit."""
        return outputs.argmax(1)

    def rows(self, outputs: Tensor) -> Tensor:
        """(B H W, classes)."""
        return outputs.movedim(1, -1).flatten(0, -2)

    def row_labels(self, y: Tensor) -> Tensor:
        """(B H W,)."""
        return y.flatten()

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """The share of each image's labelled pixels that are right."""
        known = y != NO_LABEL
        right = (outputs.argmax(1) == y) & known
        share = right.flatten(1).sum(1).double() / known.flatten(1).sum(1).clamp(min=1)
        return {"pixel_accuracy": share}

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Labels that aren't (N, H, W) integers from -1 to below `classes`."""
        return integer_faults(y, 3, classes, NO_LABEL, where)

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything other than one logit per class and pixel."""
        wanted = (len(y), classes, *y.shape[1:])
        if isinstance(outputs, Tensor) and tuple(outputs.shape) == wanted:
            return None
        hint = classes_hint(outputs, 1, classes)
        return shape_fault(outputs, f"{wanted}: one logit per class and pixel", where, hint)
