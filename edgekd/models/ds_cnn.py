"""Depthwise-separable network for keyword spotting, as in MLPerf Tiny.

Zhang et al. 2017, "Hello Edge" (arXiv:1711.07128), in the small form of MLPerf Tiny's reference
(Banbury 2021): a 10x4 convolution, four separable blocks of 64 channels, average, classifier.
"""

import torch
from torch import Tensor, nn


class SeparableBlock(nn.Module):
    """3x3 depthwise and 1x1 pointwise convolution, each with norm and ReLU: the size stays."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.norm1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(channels, channels, 1)
        self.norm2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.depthwise(x)))
        output: Tensor = self.relu2(self.norm2(self.pointwise(x)))
        return output


class DsCnn(nn.Module):
    """Stem, separable blocks and a classifier: (B, channels, T, F) -> logits (B, classes).

    T are frames and F features (49 x 10 in MLPerf Tiny); images work as well.
    """

    def __init__(
        self, width: int, blocks: int, channels: int, classes: int, small_stem: bool
    ) -> None:
        super().__init__()
        # The reference pads 49x10 to "same" for a 10x4 kernel with stride 2: 25x5 come out.
        kernel, padding = ((3, 3), (1, 1)) if small_stem else ((10, 4), (5, 1))
        self.stem = nn.Sequential(
            nn.Conv2d(channels, width, kernel, stride=2, padding=padding),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Dropout(0.2),
        )
        self.blocks = nn.Sequential(*(SeparableBlock(width) for _ in range(blocks)))
        self.dropout = nn.Dropout(0.4)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.dropout(self.blocks(self.stem(x))))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def ds_cnn(
    channels: int = 1, classes: int = 12, width: int = 64, blocks: int = 4, small_stem: bool = False
) -> DsCnn:
    """MLPerf Tiny's DS-CNN; 24,908 values with batch-norm statistics at the defaults.

    `small_stem` is a 3x3 stem for images instead of the 10x4 one for spectrograms.
    """
    return DsCnn(width, blocks, channels, classes, small_stem)
