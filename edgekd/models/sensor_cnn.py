"""One-dimensional convolutions for sensors: accelerometers, ECG, vibration, currents.

A fully convolutional network for time series (Wang et al. 2017, arXiv:1611.06455), strided so that
long windows stay cheap.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SensorBlock(nn.Module):
    """Convolution, norm and ReLU over time: (B, C, L) -> (B, C', ceil(L / stride))."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)
        self.norm = nn.BatchNorm1d(outputs)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.relu(self.norm(self.conv(x)))
        return output


class SensorCnn(nn.Module):
    """Blocks, an average over time and a classifier: (B, channels, L) -> logits (B, classes)."""

    def __init__(
        self,
        channels: int,
        classes: int,
        widths: Sequence[int],
        kernels: Sequence[int],
        stride: int,
    ) -> None:
        super().__init__()
        if len(widths) != len(kernels):
            raise ValueError(
                f"{len(widths)} widths for {len(kernels)} kernels: give one of each per block"
            )
        if any(kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels {list(kernels)}: only odd sizes keep the length")
        self.blocks = nn.Sequential()
        inputs = channels
        for block, (width, kernel) in enumerate(zip(widths, kernels, strict=True)):
            self.blocks.append(SensorBlock(inputs, width, kernel, stride if block else 1))
            inputs = width
        self.pool = nn.AdaptiveAvgPool1d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(x))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def sensor_cnn(
    channels: int = 3,
    classes: int = 6,
    widths: Sequence[int] = (32, 64, 64),
    kernels: Sequence[int] = (7, 5, 3),
    stride: int = 2,
) -> SensorCnn:
    """A small network for windows of sensor samples; each block but the first strides."""
    return SensorCnn(channels, classes, widths, kernels, stride)
