"""MobileNetV2 in its shape for small images.

Sandler et al. 2018 (arXiv:1801.04381): inverted residuals with linear bottlenecks and ReLU6. The
first strides are left out, as is usual for 28x28 and 32x32 images.
"""

import torch
from torch import Tensor, nn

# Expansion, output channels at full width, blocks, stride of the first: the paper's table 2.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 1),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project: (B, C, H, W) -> (B, C', H/stride, W/stride).

    The input is added where the shape stays.
    """

    def __init__(self, inputs: int, outputs: int, expansion: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand: nn.Module = nn.Identity()
        if expansion != 1:
            self.expand = nn.Sequential(
                nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()
            )
        self.filter = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, stride=stride, padding=1, groups=hidden, bias=False),
            nn.BatchNorm2d(hidden),
            nn.ReLU6(),
        )
        self.project = nn.Sequential(
            nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.project(self.filter(self.expand(x)))
        return x + y if self.residual else y


class MobileNetV2(nn.Module):
    """Input (B, channels, H, W), halved three times, output logits (B, classes)."""

    def __init__(self, channels: int, classes: int, width: float, last: int) -> None:
        super().__init__()
        inputs = _scaled(32, width)
        self.stem = nn.Sequential(
            nn.Conv2d(channels, inputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(inputs),
            nn.ReLU6(),
        )
        self.stages = nn.Sequential()
        for expansion, full, count, first in STAGES:
            outputs = _scaled(full, width)
            members = nn.Sequential()
            for block in range(count):
                stride = first if block == 0 else 1
                members.append(InvertedResidual(inputs, outputs, expansion, stride))
                inputs = outputs
            self.stages.append(members)
        self.head = nn.Sequential(
            nn.Conv2d(inputs, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6()
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.head(self.stages(self.stem(x))))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _scaled(channels: int, width: float) -> int:
    """The nearest multiple of 8 to the scaled width, at least 8, at most a tenth below it."""
    scaled = channels * width
    rounded = max(8, int(scaled + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * scaled else rounded + 8


def mobilenet_v2(
    channels: int = 3, classes: int = 10, width: float = 0.5, last: int = 320
) -> MobileNetV2:
    """MobileNetV2 for 28x28 and 32x32 images; `width` scales channels, `last` is the head's."""
    return MobileNetV2(channels, classes, width, last)
