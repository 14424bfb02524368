"""Places in an image, by a heatmap each."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from edgekd.data.tasks import Direction, Task, shape_fault
from edgekd.errors import EdgekdError, InputError
from edgekd.registry import TASKS


@TASKS.register(paper="Yang & Ramanan 2013, PCK; Tompson et al. 2014, heatmaps")
@dataclass(frozen=True)
class Keypoints(Task):
    """Keypoints as heatmaps: logits (B, K, H, W), targets (B, K, 2): x and y in cells of the
    heatmap, 0 the centre of the first, both -1 for a point that isn't there.

    The score is PCK: the share of a sample's points whose heatmap is largest within `radius` cells
    of them. Training compares softmax over the cells with a Gaussian of `sigma` cells.
    """

    radius: float = 1.5
    sigma: float = 1.0
    metric: ClassVar[str] = "PCK"
    directions: ClassVar[Mapping[str, Direction]] = {"distance_cells": "lower"}
    integer: ClassVar[bool] = False
    has_rows: ClassVar[bool] = True

    def __post_init__(self) -> None:
        for name in ("radius", "sigma"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, found {getattr(self, name)}")

    def label_loss(self, outputs: Tensor, y: Tensor, smoothing: float = 0.0) -> Tensor:
        """Cross-entropy over the cells against the Gaussian, the mean over the points there are."""
        logs = torch.log_softmax(outputs.flatten(2), 2)
        wanted = self._gaussian(outputs, y)
        there = (y >= 0).all(2)
        losses = -(wanted * logs).sum(2)
        return losses.where(there, 0.0).sum() / there.sum().clamp(min=1)

    def _gaussian(self, outputs: Tensor, y: Tensor) -> Tensor:
        """(B, K, H W) probabilities around each point."""
        height, width = outputs.shape[2:]
        rows = torch.arange(height, device=y.device).view(-1, 1)
        columns = torch.arange(width, device=y.device).view(1, -1)
        far = (rows - y[..., 1, None, None]) ** 2 + (columns - y[..., 0, None, None]) ** 2
        return torch.softmax(-far.flatten(2) / (2 * self.sigma**2), 2)

    def score(self, outputs: Tensor, y: Tensor) -> Tensor:
        """The share of the points there are that are found; 1 if there are none."""
        there = (y >= 0).all(2)
        near = (self._distance(outputs, y) <= self.radius) & there
        count = there.sum(1)
        return near.sum(1).double().where(count > 0, 1.0) / count.clamp(min=1)

    def _distance(self, outputs: Tensor, y: Tensor) -> Tensor:
        return (self.decode(outputs).double() - y.double()).square().sum(2).sqrt()

    def decode(self, outputs: Tensor) -> Tensor:
        """(B, K, 2) the cell of each heatmap's largest value."""
        best = outputs.flatten(2).argmax(2)
        width = outputs.shape[3]
        return torch.stack([best % width, best // width], 2).float()

    def rows(self, outputs: Tensor) -> Tensor:
        """(B K, H W): each heatmap as logits over its cells."""
        return outputs.flatten(2).flatten(0, 1)

    def extra_metrics(self, outputs: Tensor, y: Tensor) -> dict[str, Tensor]:
        """How many cells each sample's points are off, on average."""
        there = (y >= 0).all(2)
        off = self._distance(outputs, y).where(there, 0.0).sum(1)
        return {"distance_cells": off / there.sum(1).clamp(min=1)}

    def target_faults(self, y: Tensor, classes: int, where: str) -> list[EdgekdError]:
        """Targets that aren't (N, K, 2) finite numbers."""
        if y.ndim != 3 or y.shape[2] != 2 or not y.is_floating_point():
            message = f"targets of shape {tuple(y.shape)} in {y.dtype}"
            return [InputError(message, where=where, allowed="(N, K, 2): x and y of K points")]
        if not bool(torch.isfinite(y).all()):
            return [InputError("NaN or infinity among the targets", where=where)]
        return []

    def output_fault(
        self, outputs: object, y: Tensor, classes: int, where: str
    ) -> InputError | None:
        """Anything but a heatmap for each point that holds all of them."""
        wanted = f"({len(y)}, {y.shape[1]}, height, width): a heatmap for each point"
        if not isinstance(outputs, Tensor) or outputs.ndim != 4 or outputs.shape[:2] != y.shape[:2]:
            return shape_fault(outputs, wanted, where)
        height, width = outputs.shape[2:]
        if bool((y[..., 0] > width - 0.5).any()) or bool((y[..., 1] > height - 0.5).any()):
            message = f"points lie outside heatmaps of {width} x {height} cells"
            return InputError(message, where=where, hint="targets are in cells, not in pixels")
        return None
