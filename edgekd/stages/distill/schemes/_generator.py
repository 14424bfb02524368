"""The generator of data-free schemes: noise to samples."""

import math

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """(B, latent) -> (B, *shape), each channel with about the wanted mean and deviation.

    Images are grown from a quarter of their size by two doublings with 3x3 convolutions, as in
    DAFL (Chen et al. 2019); samples of other shapes come from two linear layers. The last layer is
    a batch norm that starts at `mean` and `std` and may move them.
    """

    def __init__(
        self, shape: tuple[int, ...], latent: int, width: int, mean: float, std: float
    ) -> None:
        super().__init__()
        self.shape = shape
        self.image = len(shape) == 3
        if self.image:
            channels, height, length = shape
            start = (2 * width, math.ceil(height / 4), math.ceil(length / 4))
            self.start: tuple[int, ...] = start
            self.grow = nn.Sequential(
                nn.BatchNorm2d(2 * width),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1),
                nn.BatchNorm2d(2 * width),
                nn.LeakyReLU(0.2),
                nn.Upsample(scale_factor=2),
                nn.Conv2d(2 * width, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.LeakyReLU(0.2),
                nn.Conv2d(width, channels, 3, padding=1),
                nn.Tanh(),
            )
        else:
            channels = shape[0] if len(shape) > 1 else 1
            self.start = (8 * width,)
            self.grow = nn.Sequential(
                nn.BatchNorm1d(8 * width),
                nn.LeakyReLU(0.2),
                nn.Linear(8 * width, math.prod(shape)),
            )
        self.first = nn.Linear(latent, math.prod(self.start))
        self.norm = nn.BatchNorm1d(channels)
        nn.init.constant_(self.norm.weight, std)
        nn.init.constant_(self.norm.bias, mean)

    def forward(self, z: Tensor) -> Tensor:
        x = self.grow(self.first(z).view(len(z), *self.start))
        if self.image:
            x = x[:, :, : self.shape[1], : self.shape[2]]
        flat = x.reshape(len(z), self.norm.num_features, -1)
        made: Tensor = self.norm(flat).view(len(z), *self.shape)
        return made


def roll(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Images (B, C, H, W) shifted around the edges by up to `most` pixels, all alike."""
    down, right = torch.randint(-most, most + 1, (2,), generator=generator).tolist()
    return torch.roll(x, (down, right), dims=(2, 3))
