"""The networks that the benchmarks of cost models ask for: untrained, by source, name and size."""

import torch
from torch import nn

from edgekd.installed import import_torchvision
from edgekd.models import resnet
from edgekd.models.ds_cnn import ds_cnn
from edgekd.models.mobilenet_v1 import mobilenet_v1
from edgekd.models.mobilenet_v2 import mobilenet_v2

OWN_SIDE = 32


def network(name: str) -> tuple[nn.Module, torch.Tensor]:
    """An untrained network and one input."""
    source, _, rest = name.partition(":")
    what, size = rest.split()
    if source == "own":
        return own(what, float(size)), torch.rand(1, 3, OWN_SIDE, OWN_SIDE)
    side = int(size)
    import_torchvision()
    if source == "timm":
        import timm

        module: nn.Module = timm.create_model(what, num_classes=10)
    else:
        import torchvision

        module = torchvision.models.get_model(what, weights=None, num_classes=10)
    return module, torch.rand(1, 3, side, side)


def own(name: str, width: float) -> nn.Module:
    """One of edgekd's networks with a width."""
    if name.startswith("resnet"):
        first = round(width)
        make = {"resnet8": resnet.resnet8, "resnet14": resnet.resnet14, "resnet20": resnet.resnet20}
        return make[name](widths=(first, 2 * first, 4 * first))
    if name == "ds_cnn":
        return ds_cnn(channels=3, width=round(width))
    return {"mobilenet_v1": mobilenet_v1, "mobilenet_v2": mobilenet_v2}[name](width=width)
