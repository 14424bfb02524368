"""The networks whose int8 files are looked at: some of timm's and torchvision's with random weights
and small inputs, a U-Net, a network for sensors, and recurrent ones."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.models.sensor_cnn import sensor_cnn
from edgekd.network.sources import ModelRequest
from edgekd.network.sources._importing import imported


class UNet(nn.Module):
    """Two steps down, two up by transposed convolutions, joined with what came down."""

    def __init__(self, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.down = nn.ModuleList([_pair(3, width), _pair(width, 2 * width)])
        self.middle = _pair(2 * width, 4 * width)
        self.ups = nn.ModuleList([_up(4 * width, 2 * width), _up(2 * width, width)])
        self.joins = nn.ModuleList([_pair(4 * width, 2 * width), _pair(2 * width, width)])
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for layer in self.down:
            x = layer(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, join in zip(self.ups, self.joins, strict=True):
            x = join(torch.cat([kept.pop(), up(x)], 1))
        output: Tensor = self.head(x)
        return output


STEPS, FEATURES = 16, 8


class Recurrent(nn.Module):
    """A recurrent layer over (B, STEPS, FEATURES), and a classifier of its last step."""

    def __init__(self, kind: type[nn.LSTM] | type[nn.GRU], width: int = 32) -> None:
        super().__init__()
        self.cells = kind(FEATURES, width, batch_first=True)
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        steps, _ = self.cells(x)
        output: Tensor = self.head(steps[:, -1])
        return output


def _pair(before: int, behind: int) -> nn.Sequential:
    first = [nn.Conv2d(before, behind, 3, padding=1), nn.BatchNorm2d(behind), nn.ReLU()]
    return nn.Sequential(*first, nn.Conv2d(behind, behind, 3, padding=1), nn.ReLU())


def _up(before: int, behind: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(before, behind, 2, 2)


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        timm = imported("timm", ModelRequest("", {}, Path(), "model"))
        module: nn.Module = timm.create_model(name, num_classes=10, **options)
        return module

    return make


def _torchvision(name: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        models = imported("torchvision.models", ModelRequest("", {}, Path(), "model"))
        module: nn.Module = getattr(models, name)(num_classes=10)
        return module

    return make


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "resnet18": _timm("resnet18"),
    "mobilenetv2_050": _timm("mobilenetv2_050"),
    "mobilenetv3_small_100": _timm("mobilenetv3_small_100"),
    "efficientnet_lite0": _timm("efficientnet_lite0"),
    "efficientnet_b0": _timm("efficientnet_b0"),
    "regnety_002": _timm("regnety_002"),
    "ghostnet_100": _timm("ghostnet_100"),
    "shufflenet_v2_x0_5": _torchvision("shufflenet_v2_x0_5"),
    "densenet121": _timm("densenet121"),
    "repvgg_a0": _timm("repvgg_a0"),
    "mobileone_s0": _timm("mobileone_s0"),
    "convnext_atto": _timm("convnext_atto"),
    "mobilevit_xxs": _timm("mobilevit_xxs"),
    "deit_tiny": _timm("deit_tiny_patch16_224", img_size=64),
    "swin_tiny": _timm("swin_tiny_patch4_window7_224", img_size=64, window_size=4),
    "unet": UNet,
    "sensor_cnn": sensor_cnn,
    "lstm": lambda: Recurrent(nn.LSTM),
    "gru": lambda: Recurrent(nn.GRU),
    "deit_tiny_224": _timm("deit_tiny_patch16_224"),
    "swin_tiny_224": _timm("swin_tiny_patch4_window7_224"),
}
SIDE = 64
SHAPES = {
    "deit_tiny_224": (3, 224, 224),
    "swin_tiny_224": (3, 224, 224),
    "sensor_cnn": (3, 128),
    "lstm": (STEPS, FEATURES),
    "gru": (STEPS, FEATURES),
}
"""The shape of a sample, where it is not an image of `SIDE` pixels each way."""
