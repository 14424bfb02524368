"""Residual networks for small images, from MLPerf Tiny's ResNet-8 up.

The blocks follow MLPerf Tiny's image-classification reference: biased convolutions, a batch norm
after each, and a bare strided 1x1 convolution as the shortcut (Banbury 2021; He 2015).
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a shortcut: (B, C_in, H, W) -> (B, C_out, H/stride, W/stride)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Conv2d(inputs, outputs, 1, stride=stride)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu1(self.norm1(self.conv1(x)))
        y = self.norm2(self.conv2(y))
        output: Tensor = self.relu2(y + self.shortcut(x))
        return output


class ResNet(nn.Module):
    """A stem, stages of residual blocks that halve the size from the second on, and a classifier.

    Input (B, channels, H, W), output logits (B, classes). `stem_stride = 2` halves the size at
    once, which leaves a quarter of the work in every later layer.
    """

    def __init__(
        self,
        widths: Sequence[int],
        blocks: Sequence[int],
        channels: int,
        classes: int,
        stem_stride: int = 1,
    ) -> None:
        super().__init__()
        if len(widths) != len(blocks):
            raise ValueError(f"{len(widths)} widths for {len(blocks)} stages: give one per stage")
        self.stem = nn.Sequential(
            nn.Conv2d(channels, widths[0], 3, stride=stem_stride, padding=1),
            nn.BatchNorm2d(widths[0]),
            nn.ReLU(),
        )
        self.stages = nn.Sequential()
        inputs = widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            members = nn.Sequential()
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                members.append(ResidualBlock(inputs, width, stride))
                inputs = width
            self.stages.append(members)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.stages(self.stem(x)))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def resnet8(
    channels: int = 3,
    classes: int = 10,
    widths: Sequence[int] = (16, 32, 64),
    stem_stride: int = 1,
) -> ResNet:
    """MLPerf Tiny's ResNet-8; 78,666 values with batch-norm statistics at the defaults."""
    return ResNet(widths, (1, 1, 1), channels, classes, stem_stride)


def resnet14(channels: int = 3, classes: int = 10, widths: Sequence[int] = (32, 64, 128)) -> ResNet:
    """A 14-layer teacher for 28x28 and 32x32 images: about a million parameters by default."""
    return ResNet(widths, (1, 2, 3), channels, classes)


def resnet20(channels: int = 3, classes: int = 10, widths: Sequence[int] = (16, 32, 64)) -> ResNet:
    """He et al. 2015's CIFAR ResNet-20 layout."""
    return ResNet(widths, (3, 3, 3), channels, classes)
