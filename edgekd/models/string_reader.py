"""A line of characters to a row of frames: the convolutions of a reader trained with CTC.

Shi et al. 2015 (CRNN) without the recurrence: what a frame sees is its convolutions' field.
"""

from torch import Tensor, nn


class StringReader(nn.Module):
    """(B, channels, height, W) -> logits (B, W / 2, classes), class 0 the blank."""

    def __init__(self, channels: int, height: int, classes: int, width: int, depth: int) -> None:
        super().__init__()
        self.stem = _block(channels, width, (1, 1))
        self.down = _block(width, 2 * width, (2, 2))
        self.body = nn.Sequential(*(_block(2 * width, 2 * width, (1, 1)) for _ in range(depth)))
        self.squash = nn.Conv2d(2 * width, 4 * width, (height // 2, 3), padding=(0, 1))
        self.relu = nn.ReLU()
        self.head = nn.Conv2d(4 * width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = self.body(self.down(self.stem(x)))
        outputs: Tensor = self.head(self.relu(self.squash(features)))
        return outputs.squeeze(2).transpose(1, 2)


def _block(inputs: int, outputs: int, stride: tuple[int, int]) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())


def string_reader(
    channels: int = 1, height: int = 8, classes: int = 11, width: int = 8, depth: int = 1
) -> StringReader:
    """A reader of lines that are `height` pixels high; a frame is two pixels wide."""
    if height % 2:
        raise ValueError(f"a height of {height} is not divisible by 2")
    return StringReader(channels, height, classes, width, depth)
