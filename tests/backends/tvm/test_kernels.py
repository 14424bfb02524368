"""Every layer class and awkward size, compiled and run on this machine against PyTorch."""

import platform
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("tvm")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64-v3")

TARGET = {"kind": "llvm", "mcpu": "x86-64-v3", "num-cores": 1}


def compiled(module: nn.Module, x: Tensor) -> tuple[np.ndarray, list[str], Any]:
    """Output of the compiled module, kernels without a schedule, and the kernels themselves."""
    import tvm
    from tvm import relax

    from edgekd.backends.tvm import lower
    from edgekd.backends.tvm.grid import Grid
    from edgekd.backends.tvm.isa import Isa
    from edgekd.backends.tvm.library import built
    from edgekd.quant.export import export_graph

    torch.set_num_threads(1)
    target = tvm.target.Target(TARGET)
    grid = Grid(Isa(8, 16), target, seconds=0)
    program = torch.export.export(export_graph(module, x), (x,))
    with target:
        kernels = lower.legalized(lower.imported(program), grid.choose)
        kernels, left = lower.scheduled(kernels, grid.isa)
    executable, _ = built(kernels, target)
    machine = relax.VirtualMachine(executable, tvm.cpu())
    return machine["main"](tvm.runtime.tensor(x.numpy())).numpy(), left.uncovered, kernels


def check(module: nn.Module, *shape: int) -> Any:
    torch.manual_seed(0)
    module = module.eval()
    x = torch.randn(1, *shape)
    output, uncovered, kernels = compiled(module, x)
    with torch.no_grad():
        expected = module(x).numpy()
    np.testing.assert_allclose(output, expected, atol=1e-4, rtol=1e-4)
    assert uncovered == []
    return kernels


CONVOLUTIONS = {
    "3x3": (nn.Conv2d(16, 32, 3, padding=1), (16, 14, 14)),
    "one input channel": (nn.Conv2d(1, 16, 3, padding=1), (1, 28, 28)),
    "stride 2": (nn.Conv2d(16, 24, 3, stride=2, padding=1), (16, 15, 13)),
    "1x1": (nn.Conv2d(24, 40, 1), (24, 7, 7)),
    "prime channels and widths": (nn.Conv2d(7, 13, 3, padding=1), (7, 11, 17)),
    "one output channel": (nn.Conv2d(8, 1, 3), (8, 9, 9)),
    "wide kernel": (nn.Conv2d(1, 20, (10, 4), stride=2, padding=(5, 1)), (1, 49, 10)),
    "dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2), (8, 10, 10)),
    "no bias": (nn.Conv2d(8, 8, 3, bias=False), (8, 6, 6)),
    "1x1 image": (nn.Conv2d(32, 64, 1), (32, 1, 1)),
    "depthwise": (nn.Conv2d(16, 16, 3, padding=1, groups=16), (16, 14, 14)),
    "depthwise stride 2": (nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24), (24, 15, 13)),
    "depthwise prime": (nn.Conv2d(13, 13, 3, padding=1, groups=13), (13, 11, 7)),
    "depthwise 5x5": (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 12, 12)),
    "depthwise multiplier": (nn.Conv2d(8, 16, 3, padding=1, groups=8), (8, 12, 12)),
    "grouped": (nn.Conv2d(16, 32, 3, padding=1, groups=2), (16, 10, 10)),
    "grouped narrow": (nn.Conv2d(12, 12, 3, padding=1, groups=3), (12, 10, 10)),
    "grouped prime": (nn.Conv2d(15, 21, 3, padding=1, groups=3), (15, 9, 9)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_a_convolution_equals_torch(name: str) -> None:
    layer, shape = CONVOLUTIONS[name]
    assert check(nn.Sequential(layer, nn.ReLU()), *shape)


class Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm = nn.BatchNorm2d(channels)
        self.second = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.norm(self.first(x)))
        return torch.relu(self.second(y) + x)


@pytest.mark.parametrize("channels", [16, 13])
def test_a_residual_block_is_fused_into_its_convolutions(channels: int) -> None:
    kernels = check(Residual(channels), channels, 9, 11)
    names = [name.name_hint for name, _ in kernels.functions_items() if name.name_hint != "main"]
    assert sum("convolution" in name for name in names) == 2
    assert not any("add" in name and "convolution" not in name for name in names)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(24)
        self.qkv = nn.Linear(24, 72)
        self.out = nn.Linear(24, 24)

    def forward(self, x: Tensor) -> Tensor:
        b, s, _ = x.shape
        q, k, v = self.qkv(self.norm(x)).view(b, s, 3, 2, 12).permute(2, 0, 3, 1, 4)
        scores = torch.softmax(q @ k.transpose(-1, -2) / 12**0.5, -1)
        mixed: Tensor = self.out((scores @ v).transpose(1, 2).reshape(b, s, 24))
        return mixed


OTHERS = {
    "linear": (nn.Linear(64, 10), (64,)),
    "linear on rows": (nn.Sequential(nn.Linear(12, 20), nn.GELU(), nn.Linear(20, 7)), (5, 12)),
    "flatten, linear, softmax": (
        nn.Sequential(nn.Flatten(), nn.Linear(75, 33), nn.ReLU(), nn.Linear(33, 5), nn.Softmax(1)),
        (3, 5, 5),
    ),
    "max pooling": (nn.Sequential(nn.Conv2d(3, 16, 3), nn.MaxPool2d(2)), (3, 12, 12)),
    "average pooling": (nn.Sequential(nn.Conv2d(3, 13, 3), nn.AvgPool2d(3, 2, 1)), (3, 12, 12)),
    "global pooling": (nn.Sequential(nn.Conv2d(3, 13, 3), nn.AdaptiveAvgPool2d(1)), (3, 12, 12)),
    "adaptive pooling": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(3)), (3, 12, 12)),
    "activations": (
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.ReLU6(), nn.Sigmoid(), nn.SiLU()),
        (3, 12, 12),
    ),
    "attention": (Attention(), (7, 24)),
    "1-D": (
        nn.Sequential(
            nn.Conv1d(3, 16, 5, padding=2), nn.ReLU(), nn.MaxPool1d(2), nn.Conv1d(16, 9, 3),
            nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(9, 4),
        ),
        (3, 64),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_layers_equal_torch(name: str) -> None:
    module, shape = OTHERS[name]
    check(module, *shape)
