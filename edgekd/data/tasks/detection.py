"""Boxes with classes, by a grid of cells."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from edgekd.data.tasks import NO_LABEL, Task, shape_fault
from edgekd.data.tasks._boxes import f1, suppressed, target_faults
from edgekd.data.tasks._search import boxes_found
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS
from edgekd.values.box_search import BoxSearch


@TASKS.register(paper="https://arxiv.org/abs/1506.02640")
@dataclass(frozen=True)
class Detection(Task):
    """Boxes on a grid: outputs (B, 5 + classes, H, W), targets (B, M, 5).

    Each of the H x W cells gives one box: channel 0 is the logit of there being one, 1 to 4 are
    logits of x, y (of the centre, as shares of the cell), width, height (as shares of the image),
    the rest are the classes' logits. A target is (class, x, y, width, height) with shares of the
    image, class -1 after the last one; the cell that its centre lies in answers for it.

    The score is an image's F1: boxes above `confidence` that no more confident box of their class
    overlaps by `overlap` or more, matched with targets of their class by an IoU of 0.5.

    With `boxes_in_file` backends that can give another file, which decodes and suppresses boxes by
    itself: so many of each image, the surest first.
    """

    confidence: float = 0.5
    overlap: float = 0.5
    boxes_in_file: int = 0
    metric: ClassVar[str] = "F1 at IoU 0.5"
    integer: ClassVar[bool] = False

    def __post_init__(self) -> None:
        for name in ("confidence", "overlap"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie between 0 and 1, found {getattr(self, name)}")
        if self.boxes_in_file < 0:
            raise ValueError(f"boxes_in_file must be at least 1, found {self.boxes_in_file}")

    @property
    def search(self) -> BoxSearch | None:
        """The same decoding and suppression, for `boxes_in_file` boxes."""
        if not self.boxes_in_file:
            return None
        return BoxSearch(grid_candidates, self.confidence, self.overlap, self.boxes_in_file)

    def searched(self, outputs: Tensor) -> Tensor:
        """The boxes that the same search in PyTorch finds."""
        assert self.search is not None
        return boxes_found(self.search, outputs)

    def of_boxes(self) -> "Detection":
        """The same score of boxes that a file found."""
        return FoundBoxes(confidence=self.confidence, overlap=self.overlap, output=self.output)

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Redmon et al. 2016, eq. 3, with logits: binary cross-entropy of every cell; where a
        target's centre lies, 5 times the squared error of centre and square roots of the sides,
        and cross-entropy of the class. Sums over an image, the mean over the batch."""
        present, boxes, classes = self._cells(outputs, y)
        objectness = F.binary_cross_entropy_with_logits(
            outputs[:, 0], present.float(), reduction="sum"
        )
        if not bool(present.any()):
            return objectness / len(y)
        found = torch.sigmoid(outputs[:, 1:5].movedim(1, -1)[present])
        named = outputs[:, 5:].movedim(1, -1)[present]
        wanted = boxes[present]
        centre = (found[:, :2] - wanted[:, :2]).square().sum()
        sides = (found[:, 2:].clamp(min=1e-6).sqrt() - wanted[:, 2:].sqrt()).square().sum()
        names = F.cross_entropy(named, classes[present], reduction="sum")
        return (objectness + 5 * (centre + sides) + names) / len(y)

    def _cells(self, outputs: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Which cells (B, H, W) answer for a target, with what box (B, H, W, 4), what class."""
        batch, _, height, width = outputs.shape
        present = torch.zeros(batch, height, width, dtype=torch.bool, device=y.device)
        boxes = torch.zeros(batch, height, width, 4, device=y.device)
        classes = torch.zeros(batch, height, width, dtype=torch.int64, device=y.device)
        image, place = (y[..., 0] >= 0).nonzero(as_tuple=True)
        targets = y[image, place]
        x, down = targets[:, 1] * width, targets[:, 2] * height
        column, row = x.long().clamp(0, width - 1), down.long().clamp(0, height - 1)
        present[image, row, column] = True
        boxes[image, row, column] = torch.stack(
            [x - column, down - row, targets[:, 3], targets[:, 4]], 1
        )
        classes[image, row, column] = targets[:, 0].long()
        return present, boxes, classes

    def soft_losses(self, y: Tensor) -> Sequence[Mapping[str, Any]]:
        """The teacher's scores and boxes."""
        names = ("detection-scores", "detection-localization")
        return tuple({"name": name, "weight": 0.5} for name in names)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """Each image's F1; 1 where there is nothing and nothing is found."""
        predicted = self.decode(outputs)
        scores = [f1(mine, theirs) for mine, theirs in zip(predicted, y, strict=True)]
        return torch.tensor(scores, dtype=torch.float64)

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, H W, 5) the boxes that are left, the surest first, class -1 after the last."""
        count, cells = len(outputs), outputs[0, 0].numel()
        boxes, sure, names = self.candidates(outputs)
        result = torch.full((count, cells, 5), float(NO_LABEL))
        for image in range(count):
            kept = suppressed(
                boxes[image], sure[image], names[image], self.confidence, self.overlap
            )
            result[image, : len(kept), 0] = names[image, kept].float()
            result[image, : len(kept), 1:] = boxes[image, kept]
        return result

    def candidates(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Every cell's box (B, H W, 4) in shares of the image, how sure it is, and its class."""
        return grid_candidates(outputs.float().cpu())

    def classes_in(self, y: Tensor) -> int:
        """The largest class and one."""
        return int(y[..., 0].max()) + 1

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that aren't (N, M, 5), classes out of range, boxes outside the image."""
        return target_faults(y, classes, where)

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything but 5 + classes channels on a grid."""
        like = (len(y), 5 + classes)
        if isinstance(outputs, Tensor) and outputs.ndim == 4 and outputs.shape[:2] == like:
            return None
        wanted = f"({len(y)}, {5 + classes}, height, width): a box and {classes} classes per cell"
        return shape_fault(outputs, wanted, where)


def grid_candidates(outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The box of each cell of outputs (B, 5 + classes, H, W), how sure it is, and its class."""
    height, width = outputs.shape[2:]
    box = torch.sigmoid(outputs[:, 1:5])
    x = (box[:, 0] + torch.arange(width)) / width
    y = (box[:, 1] + torch.arange(height).view(-1, 1)) / height
    boxes = torch.stack([x, y, box[:, 2], box[:, 3]], -1).flatten(1, 2)
    share, name = torch.softmax(outputs[:, 5:], 1).max(1)
    sure = torch.sigmoid(outputs[:, 0]) * share
    return boxes, sure.flatten(1), name.flatten(1)


class FoundBoxes(Detection):
    """Judges boxes (B, n, 6) that a file found: class, x, y, width, height, score."""

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, n, 5) the boxes without their scores."""
        return outputs[..., :5]
