"""Reading a grid detector's outputs (B, 5 + classes, H, W) and targets (B, M, 5).

Channel 0 is the logit of an object, 1 to 4 those of x, y, width, height, the rest the classes'; a
target is (class, x, y, width, height) in shares of the image, class -1 for none (task detection).
"""

import torch
from torch import Tensor

from edgekd.training.losses import Shape


def refuse_other(outputs: Shape) -> None:
    """`ValueError` unless the outputs are a grid of boxes."""
    if len(outputs) != 3 or outputs[0] < 6:
        raise ValueError(f"needs a grid of boxes (5 + classes, H, W), found outputs {outputs}")


def scores_of(outputs: Tensor) -> Tensor:
    """(B, H W) how sure each cell's proposal is: its object logit plus its best log-class."""
    best = torch.log_softmax(outputs[:, 5:], 1).amax(1)
    return (outputs[:, 0] + best).flatten(1)


def answering_cells(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Which cells (B, H, W) answer for a target, and with what box (B, 4, H, W), x and y as shares
    of the cell."""
    count, _, height, width = outputs.shape
    present = torch.zeros(count, height, width, dtype=torch.bool, device=outputs.device)
    boxes = torch.zeros(count, 4, height, width, device=outputs.device)
    image, place = (targets[..., 0] >= 0).nonzero(as_tuple=True)
    boxed = targets[image, place]
    x, down = boxed[:, 1] * width, boxed[:, 2] * height
    column, row = x.long().clamp(0, width - 1), down.long().clamp(0, height - 1)
    present[image, row, column] = True
    values = torch.stack([x - column, down - row, boxed[:, 3], boxed[:, 4]], 1)
    boxes[image, :, row, column] = values.to(boxes.dtype)
    return present, boxes


def inside_boxes(targets: Tensor, height: int, width: int) -> Tensor:
    """(B, H, W) 1 where a cell's centre lies within any target's box, else 0."""
    rows = (torch.arange(height, device=targets.device) + 0.5) / height
    columns = (torch.arange(width, device=targets.device) + 0.5) / width
    x, y, wide, high = (targets[..., n, None] for n in range(1, 5))
    across = (columns - x).abs() <= wide / 2
    down = (rows - y).abs() <= high / 2
    there = (targets[..., 0] >= 0)[..., None, None]
    return (across[:, :, None, :] & down[..., None] & there).any(1).float()
