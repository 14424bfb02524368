"""The layers of real files timed on this machine, by the network's own names."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekd.devices.opening import open_device
from edgekd.quant.calibration import calibrate
from edgekd.registry import BACKENDS
from edgekd.run.layer_timing import time_with
from edgekd.values.candidate import Candidate
from edgekd.values.target import Scheme, load_target

IMAGES = torch.randn(16, 3, 16, 16, generator=torch.Generator().manual_seed(0))


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.deep = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.deep(torch.relu(self.stem(x))))
        output: Tensor = self.head(x.mean([2, 3]))
        return output


@pytest.mark.slow
@pytest.mark.parametrize("name", ["onnx", "tflite"])
@pytest.mark.parametrize("form", ["int8", "float"])
def test_every_layer_has_a_time(name: str, form: str):
    module = Block().eval()
    candidate = Candidate(module, IMAGES[:1])
    if form == "int8":
        graph = calibrate(module, IMAGES[:1], IMAGES, Scheme(activations="int8-affine"))
        candidate = Candidate(graph, IMAGES[:1], "int8")
    backend: Any = BACKENDS.get(name).make()
    found = time_with(backend, candidate, load_target("x86-vnni"), {}, open_device("host"))
    assert found is not None
    assert set(found.layers) == {"stem", "deep", "head"}
    assert min(found.layers.values()) >= 0
    assert found.unit == "us"
    assert found.where.endswith("on host")
