"""An encoder and a decoder with skip connections: outputs for every pixel or every cell.

Ronneberger et al. 2015 (U-Net) in small, with nearest upsampling, which every runtime has.
"""

import torch
from torch import Tensor, nn


class Segmenter(nn.Module):
    """(B, channels, H, W) -> (B, outputs, H, W), or half the size with `coarse`; H and W are
    divided by 4."""

    def __init__(self, channels: int, outputs: int, width: int, coarse: bool) -> None:
        super().__init__()
        self.coarse = coarse
        self.first = _block(channels, width, 1)
        self.second = _block(width, 2 * width, 2)
        self.third = _block(2 * width, 4 * width, 2)
        self.deep = _block(4 * width, 4 * width, 1)
        self.rise = nn.Upsample(scale_factor=2, mode="nearest")
        self.middle = _block(6 * width, 2 * width, 1)
        self.last = nn.Identity() if coarse else _block(3 * width, width, 1)
        self.head = nn.Conv2d(2 * width if coarse else width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        second = self.second(first)
        deep = self.deep(self.third(second))
        features = self.middle(torch.cat([self.rise(deep), second], 1))
        if not self.coarse:
            features = self.last(torch.cat([self.rise(features), first], 1))
        outputs: Tensor = self.head(features)
        return outputs


def _block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def segmenter(channels: int = 1, classes: int = 11, width: int = 8) -> Segmenter:
    """Logits of classes for every pixel."""
    return Segmenter(channels, classes, width, coarse=False)


def heatmaps(channels: int = 1, points: int = 4, width: int = 8) -> Segmenter:
    """A heatmap for each keypoint, half the image's size."""
    return Segmenter(channels, points, width, coarse=True)
