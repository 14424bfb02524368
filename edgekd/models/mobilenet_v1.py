"""MobileNetV1, at a quarter of its width as in MLPerf Tiny's visual wake words.

Howard et al. 2017 (arXiv:1704.04861): a 3x3 convolution and 13 depthwise-separable blocks; the
convolutions have biases, as in MLPerf Tiny's reference (Banbury 2021).
"""

import torch
from torch import Tensor, nn

# Output channels at full width, and stride, of each of the 13 blocks.
BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (512, 1),
    (1024, 2),
    (1024, 1),
)


class DepthwiseSeparable(nn.Module):
    """Depthwise 3x3, pointwise 1x1, norm and ReLU after each: (B, C, H, W) -> (B, C', H/s, W/s)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride=stride, padding=1, groups=inputs)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.pointwise = nn.Conv2d(inputs, outputs, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu1(self.norm1(self.depthwise(x)))
        output: Tensor = self.relu2(self.norm2(self.pointwise(x)))
        return output


class MobileNetV1(nn.Module):
    """Input (B, channels, H, W), output logits (B, classes); `strided` is how many strides of 2."""

    def __init__(self, channels: int, classes: int, width: float, strided: int) -> None:
        super().__init__()
        if not 0 <= strided <= 5:
            raise ValueError(f"MobileNetV1 can have 0 to 5 strides of 2, not {strided}")
        inputs = _scaled(32, width)
        # Small images keep their size in the stem and the first blocks that would halve it.
        skipped = 5 - strided
        self.stem = nn.Sequential(
            nn.Conv2d(channels, inputs, 3, stride=1 if skipped else 2, padding=1),
            nn.BatchNorm2d(inputs),
            nn.ReLU(),
        )
        skipped -= 1
        self.blocks = nn.Sequential()
        for full, stride in BLOCKS:
            if stride == 2 and skipped > 0:
                stride, skipped = 1, skipped - 1
            self.blocks.append(DepthwiseSeparable(inputs, _scaled(full, width), stride))
            inputs = _scaled(full, width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.pool(self.blocks(self.stem(x)))
        logits: Tensor = self.classifier(torch.flatten(features, 1))
        return logits


def _scaled(channels: int, width: float) -> int:
    return max(1, int(channels * width))


def mobilenet_v1(
    channels: int = 3, classes: int = 2, width: float = 0.25, strided: int = 5
) -> MobileNetV1:
    """MLPerf Tiny's MobileNetV1 0.25 for 96x96 images; 221,794 values at the defaults.

    `strided` is how often the size is halved: 5 for 96x96, 3 for 28x28 and 32x32.
    """
    return MobileNetV1(channels, classes, width, strided)
