"""timm's networks with random weights whose statistics look like a trained network's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from edgekd.installed import has_module
from edgekd.network.sources import ModelRequest
from edgekd.network.sources._importing import imported


def trained_looking(name: str) -> nn.Module:
    """A network of timm for ten classes, in eval mode, with batch norms that differ from channel to
    channel; the test is skipped where timm is missing."""
    if not has_module("timm"):
        pytest.skip("timm is not installed")
    timm = imported("timm", ModelRequest("", {}, Path(), "model"))
    torch.manual_seed(0)
    module: nn.Module = timm.create_model(name, num_classes=10)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -0.1, 0.1)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
            nn.init.uniform_(part.weight, 0.5, 1.5)
    return module.eval()
