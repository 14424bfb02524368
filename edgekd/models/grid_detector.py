"""A one-stage detector: strided convolutions, then a box and its classes in every cell.

Redmon et al. 2016 without the fully connected layers; `edgekd.data.tasks.detection` says what the
outputs mean.
"""

from torch import Tensor, nn


class GridDetector(nn.Module):
    """(B, channels, H, W) -> (B, 5 + classes, H / 4, W / 4)."""

    def __init__(self, channels: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = _block(channels, width, 1)
        self.down1 = _block(width, 2 * width, 2)
        self.down2 = _block(2 * width, 4 * width, 2)
        self.body = nn.Sequential(*(_block(4 * width, 4 * width, 1) for _ in range(depth)))
        self.head = nn.Conv2d(4 * width, 5 + classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.body(self.down2(self.down1(self.stem(x)))))
        return outputs


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def grid_detector(
    channels: int = 1, classes: int = 10, width: int = 8, depth: int = 1
) -> GridDetector:
    """A small detector for few objects per image; a cell is four pixels wide."""
    return GridDetector(channels, classes, width, depth)
