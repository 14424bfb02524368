"""Boxes of any detector: the user's functions read its outputs, and COCO's metric judges them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from edgekd.data.tasks import NO_LABEL, VALUES, Direction, Task
from edgekd.data.tasks._boxes import f1, overlaps, suppressed, target_faults
from edgekd.data.tasks._functions import (
    Function,
    fault_of,
    form_of,
    function_identity,
    function_of,
    loss_by,
    try_loss,
)
from edgekd.data.tasks._precision import IOUS, Matches, matches_of, mean_average_precision
from edgekd.data.tasks._search import boxes_found
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS
from edgekd.values import tree
from edgekd.values.box_search import BoxSearch

__all__ = ["Boxes", "boxes", "overlaps", "suppressed"]


@dataclass(frozen=True, eq=False, repr=False)
class Boxes(Task):
    """What the user's decoder finds, judged by mean average precision; see `boxes`."""

    decodes: Callable[..., Any]
    teaches: Callable[..., Any] | None = None
    ious: tuple[float, ...] = IOUS
    confidence: float = 0.25
    within: BoxSearch | None = None
    integer: ClassVar[bool] = False
    directions: ClassVar[Mapping[str, Direction]] = {"image_f1": "higher"}
    judges_whole: ClassVar[bool] = True
    reads_targets_of: ClassVar[tuple[str, ...]] = ("detection",)

    def __repr__(self) -> str:
        """What results depend on: the functions with the content of their files."""
        functions = [function_identity(each) for each in (self.decodes, self.teaches)]
        facts = f"{functions}, {self.ious}, {self.confidence}, {self.output}"
        if self.within is not None:
            search = self.within
            identity = function_identity(search.candidates)
            facts += f", {identity}, {search.confidence}, {search.overlap}, {search.most}"
        return f"Boxes({facts})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Boxes) and repr(self) == repr(other)

    def __hash__(self) -> int:
        return hash(repr(self))

    @property
    def search(self) -> BoxSearch | None:
        """The user's candidates, and suppression."""
        return self.within

    def searched(self, outputs: Any) -> Tensor:
        """The boxes that the same search in PyTorch finds."""
        assert self.within is not None
        return boxes_found(self.within, outputs)

    def of_boxes(self) -> "Boxes":
        """The same metric of boxes that a file found."""
        return replace(self, decodes=_as_they_are, within=None, output=None)

    @property
    def metric(self) -> str:  # type: ignore[override]
        """Mean average precision with its IoUs."""
        if len(self.ious) == 1:
            return f"mAP at IoU {self.ious[0]:.2f}"
        return f"mAP at IoU {self.ious[0]:.2f} to {self.ious[-1]:.2f}"

    @property
    def reads_all(self) -> bool:  # type: ignore[override]
        """Whether the functions get every output: unless one is named."""
        return self.output is None

    def label_loss(self, outputs: Any, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """The user's loss, or zero without one."""
        return loss_by(self.teaches, outputs, y)

    def _try_loss(self, outputs: Any, y: Tensor) -> None:
        try_loss(self.teaches, outputs, y)

    def soft_losses(self, y: Tensor) -> Sequence[Mapping[str, Any]]:
        """The squared error of each output."""
        return tuple({**table, "output": "all"} for table in VALUES)

    def found(self, outputs: Any, count: int) -> list[Tensor]:
        """The boxes of each image (n, 6): class, x, y, width, height, score."""
        given = self.decodes(outputs)
        images = list(given) if isinstance(given, list | tuple | Tensor) else []
        wrong = next((image for image in images if not _are_boxes(image)), None)
        if wrong is not None or len(images) != count:
            what = form_of(wrong) if wrong is not None else f"{form_of(given)} of {len(images)}"
            raise InputError(
                f"the decoder gives {what} for {count} images",
                where="data.task: decode",
                allowed="(images, n, 6), or a list with (n, 6) for each image: "
                "class, x, y, width, height, score; class -1 for none",
            )
        return [image[image[:, 0] != NO_LABEL].detach().float().cpu() for image in images]

    def judged(self, outputs: Any, y: Tensor) -> Tensor:
        """Mean average precision, one number."""
        matches = matches_of(self.found(outputs, len(y)), y.cpu(), self.ious)
        return torch.tensor(mean_average_precision(matches, np.ones(len(y))), dtype=torch.float64)

    def redrawn(self, outputs: Any, y: Tensor, draws: Sequence[Tensor]) -> list[float]:
        """The same for samples drawn with replacement: boxes are matched once."""
        matches = matches_of(self.found(outputs, len(y)), y.cpu(), self.ious)
        return [_weighted(matches, draw, len(y)) for draw in draws]

    def score(self, outputs: Any, y: Tensor) -> Tensor:
        """(B,) each image's F1 at IoU 0.5, of boxes with at least `confidence`."""
        pairs = zip(self.decode(outputs, len(y)), y.cpu(), strict=True)
        return torch.tensor([f1(mine, theirs) for mine, theirs in pairs], dtype=torch.float64)

    def decode(self, outputs: Any, count: int | None = None) -> Tensor:
        """(B, M, 5) the boxes with at least `confidence`, class -1 after the last."""
        count = tree.count(outputs) if count is None else count
        sure = [rows[rows[:, 5] >= self.confidence] for rows in self.found(outputs, count)]
        made = torch.full((count, max([len(rows) for rows in sure] + [1]), 5), float(NO_LABEL))
        for image, rows in enumerate(sure):
            made[image, : len(rows)] = rows[:, :5]
        return made

    def extra_metrics(self, outputs: Any, y: Tensor) -> Mapping[str, Tensor]:
        """Each image's F1 at IoU 0.5."""
        return {"image_f1": self.score(outputs, y)}

    def classes_in(self, y: Tensor) -> int:
        """The largest class and one."""
        return int(y[..., 0].max()) + 1

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that aren't (N, M, 5), classes out of range, boxes outside the image."""
        return target_faults(y, classes, where)

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """What the user's functions raise on these outputs."""
        tried = {"loss": self._try_loss, "decoder": self.judged}
        if self.within is not None:
            tried["candidates"] = self._try_search
        return fault_of(tried, outputs, y, where)

    def _try_search(self, outputs: Any, y: Tensor) -> None:
        self.searched(outputs)


@TASKS.register(paper="https://arxiv.org/abs/1405.0312")
def boxes(
    decode: Function,
    loss: Function | None = None,
    iou: float | None = None,
    confidence: float = 0.25,
    output: str | int | None = None,
    candidates: Function | None = None,
    boxes_in_file: int = 0,
    least: float = 0.05,
    overlap: float = 0.5,
) -> Boxes:
    """Objects that a detector of any kind finds, scored by COCO's mean average precision.

    Targets (N, M, 5) are (class, x, y, width, height) in shares of the image, x and y of the
    centre, class -1 after an image's last one: those of `coco` and `yolo` sets. `decode` and `loss`
    are `package.module:callable`, looked up beside the recipe, or callables; they get the output
    that is named, or all of them. `decode(outputs)` gives (B, n, 6), or a list with (n, 6) for each
    image: a target's five numbers and a score, after non-maximum suppression where the detector
    needs it (`suppressed` is one). `loss(outputs, y)` is a scalar; without it only teachers teach.

    The metric is the mean over ten IoUs from 0.50 to 0.95, or that at one `iou`. Two networks agree
    by the F1 of their boxes with at least `confidence`.

    With `boxes_in_file` backends that can give another file, which finds so many boxes of each
    image by itself: those of `candidates(outputs)` (boxes (B, n, 4), scores (B, n), classes (B, n),
    in operators that torch.export follows) that are surer than `least`, and that no surer one of
    their class covers by `overlap`.
    """
    shares = {"iou": iou, "confidence": confidence, "least": least, "overlap": overlap}
    for name, value in shares.items():
        if value is not None and not 0 < value < 1:
            raise ValueError(f"{name} must lie between 0 and 1, found {value}")
    proposes = function_of(candidates, "candidates")
    if bool(proposes) != (boxes_in_file > 0):
        raise ValueError("candidates and boxes_in_file (at least 1) go together")
    within = BoxSearch(proposes, least, overlap, boxes_in_file) if proposes else None
    decodes = function_of(decode, "decode")
    assert decodes is not None
    return Boxes(
        decodes=decodes,
        teaches=function_of(loss, "loss"),
        ious=IOUS if iou is None else (iou,),
        confidence=confidence,
        within=within,
        output=output,
    )


boxes.example = {"decode": "torch:clone"}  # type: ignore[attr-defined]


def _as_they_are(boxes: Any) -> Any:
    return boxes


def _are_boxes(rows: object) -> bool:
    return isinstance(rows, Tensor) and rows.dim() == 2 and rows.shape[1] == 6


def _weighted(matches: Matches, draw: Tensor, count: int) -> float:
    weights = np.bincount(draw.numpy(), minlength=count).astype(np.float64)
    return mean_average_precision(matches, weights)
