"""Integer kernels, compiled for this machine, against the quantized graph they were made of."""

import platform
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.rewrite import as_uint8
from edgekd.values.target import load_target

pytest.importorskip("tvm")
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="compiles for x86-64")

KINDS = {
    "": ("x86-64-v3", 8, 16, ()),
    "pmaddubsw": ("x86-64-v3", 8, 16, ()),
    "vpdpbusd256": ("alderlake", 8, 16, ("avx_vnni",)),
    "vpdpbusd512": ("cascadelake", 16, 32, ("avx512_vnni",)),
}
"""For each dot product: LLVM's processor, lanes, registers, and the features beyond AVX2."""


@cache
def _features() -> frozenset[str]:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    flags = next((line for line in lines if line.startswith("flags")), ":")
    return frozenset(flags.split(":")[1].split())


def runnable() -> list[str]:
    return [name for name, (*_, needed) in KINDS.items() if set(needed) <= _features()]


def quantized(module: nn.Module, *shape: int, target: str = "x86") -> tuple[fx.GraphModule, Tensor]:
    """The module calibrated in a target's scheme on random inputs, and these."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    x = torch.randn(8, *shape)
    graph = calibrate(module.eval(), x[:1], x, load_target(target).quantization)
    return graph, x


def compiled(graph: fx.GraphModule, x: Tensor, dot: str = "") -> tuple[Callable[..., Any], Any]:
    """The graph as a function of one sample, and the kernels that have no schedule."""
    import tvm
    from tvm import relax

    from edgekd.backends.tvm import lower
    from edgekd.backends.tvm.integers import choice, intrinsics
    from edgekd.backends.tvm.integers import lower as integers
    from edgekd.backends.tvm.integers.dot import dot_named
    from edgekd.backends.tvm.integers.reading import as_graph
    from edgekd.backends.tvm.isa import Isa
    from edgekd.backends.tvm.library import built

    cpu, lanes, registers, _ = KINDS[dot]
    isa = Isa(lanes, registers)
    target = tvm.target.Target({"kind": "llvm", "mcpu": cpu, "num-cores": 1})
    chosen = dot_named(dot, lanes, signed=False)
    intrinsics.register(chosen)
    program = torch.export.export(as_uint8(graph), (x[:1],))
    with target:
        module, _ = integers.written(
            as_graph(program), chosen, lambda form, _: choice.by_rule(form, isa)
        )
        module, left = lower.scheduled(lower.legalized(module, None), isa)
    executable, _ = built(module, target)
    machine = relax.VirtualMachine(executable, tvm.cpu())

    def run(sample: Tensor) -> np.ndarray:
        return np.asarray(machine["main"](tvm.runtime.tensor(sample.numpy())).numpy())

    return run, left


def largest_step(graph: fx.GraphModule, x: Tensor, run: Callable[..., Any]) -> float:
    """The largest difference from the quantized graph, in steps of the output's grid."""
    from edgekd.quant.inspection import output_scale

    scale = output_scale(graph)
    assert scale is not None
    with torch.no_grad():
        expected = graph(x).numpy()
    outputs = np.concatenate([run(x[i : i + 1]) for i in range(len(x))])
    assert outputs.shape == expected.shape
    assert np.abs(expected).max() > 3 * scale
    return float(np.abs(outputs - expected).max() / scale)


def share_of_steps(graph: fx.GraphModule, x: Tensor, run: Callable[..., Any]) -> float:
    """The share of values that differ. The graph adds and rounds in float32, so a sum next to the
    middle between two steps may go to the other one."""
    with torch.no_grad():
        expected = graph(x).numpy()
    outputs = np.concatenate([run(x[i : i + 1]) for i in range(len(x))])
    return float((np.abs(outputs - expected) > 1e-6).mean())


torch.manual_seed(0)
LAYERS = {
    "3x3": (nn.Conv2d(16, 32, 3, padding=1), (16, 14, 14)),
    "one input channel": (nn.Conv2d(1, 16, 3, padding=1), (1, 13, 12)),
    "three input channels, stride 2": (nn.Conv2d(3, 24, 3, stride=2, padding=1), (3, 15, 17)),
    "1x1": (nn.Conv2d(24, 40, 1), (24, 7, 7)),
    "1x1, stride 2": (nn.Conv2d(16, 32, 1, stride=2), (16, 9, 9)),
    "prime channels and widths": (nn.Conv2d(7, 13, 3, padding=1), (7, 11, 17)),
    "one output channel": (nn.Conv2d(8, 1, 3), (8, 9, 9)),
    "wide kernel": (nn.Conv2d(1, 20, (10, 4), stride=2, padding=(5, 1)), (1, 49, 10)),
    "dilated": (nn.Conv2d(8, 8, 3, padding=2, dilation=2), (8, 10, 10)),
    "dilated, odd channels": (nn.Conv2d(5, 8, 3, padding=2, dilation=2), (5, 10, 10)),
    "same padding": (nn.Conv2d(8, 8, 4, padding="same"), (8, 10, 9)),
    "no bias": (nn.Conv2d(8, 8, 3, bias=False), (8, 6, 6)),
    "1x1 image": (nn.Conv2d(32, 64, 1), (32, 1, 1)),
    "depthwise": (nn.Conv2d(16, 16, 3, padding=1, groups=16), (16, 14, 14)),
    "depthwise, stride 2": (nn.Conv2d(24, 24, 3, stride=2, padding=1, groups=24), (24, 15, 13)),
    "depthwise, prime": (nn.Conv2d(13, 13, 3, padding=1, groups=13), (13, 11, 7)),
    "depthwise 5x5": (nn.Conv2d(8, 8, 5, padding=2, groups=8), (8, 12, 12)),
    "depthwise multiplier": (nn.Conv2d(8, 16, 3, padding=1, groups=8), (8, 12, 12)),
    "grouped": (nn.Conv2d(16, 32, 3, padding=1, groups=2), (16, 10, 10)),
    "grouped, narrow": (nn.Conv2d(12, 12, 3, padding=1, groups=3), (12, 10, 10)),
    "grouped, prime": (nn.Conv2d(15, 21, 3, padding=1, groups=3), (15, 9, 9)),
    "linear": (nn.Linear(37, 10), (37,)),
    "linear on rows": (nn.Linear(24, 20), (5, 24)),
    "sequence": (nn.Conv1d(6, 16, 5, padding=2, stride=2), (6, 33)),
}


@pytest.mark.parametrize("dot", runnable())
@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_is_the_quantized_graph(name: str, dot: str) -> None:
    layer, shape = LAYERS[name]
    graph, x = quantized(nn.Sequential(layer, nn.ReLU()), *shape)
    run, left = compiled(graph, x, dot)
    assert left.uncovered == []
    assert largest_step(graph, x, run) <= 1.01
    assert share_of_steps(graph, x, run) < 2e-3


class Branches(nn.Module):
    """A sum, a product with a gate for each channel, and a concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.second = nn.Conv2d(8, 8, 1)
        self.gate = nn.Conv2d(8, 8, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x))
        z = torch.relu(self.second(y) + y)
        gate = torch.sigmoid(self.gate(z.mean((2, 3), keepdim=True)))
        return torch.cat([z * gate, y], 1)


class Moves(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y = nn.functional.pad(x, (1, 2, 0, 1))[:, 1:, ::2]
        return y.permute(0, 2, 3, 1).reshape(y.shape[0], -1, 2)[:, 1:].transpose(1, 2).flatten(1)


class SequenceFirst(nn.Module):
    """Layers on (L, N, C), as inside `nn.MultiheadAttention`, with a sum beside one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 20), nn.Linear(20, 20)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.relu(self.first(x.transpose(0, 1)))
        return (y + self.second(y)).transpose(0, 1)


class Clamped(nn.Module):
    """Channels times their means, clamped."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.relu6(x * x.mean((2, 3), keepdim=True))


OTHERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "branches": (Branches(), (3, 9, 7)),
    "sequence first": (SequenceFirst(), (6, 8)),
    "moves": (nn.Sequential(nn.Conv2d(3, 5, 1), Moves()), (3, 6, 5)),
    "a product, clamped": (nn.Sequential(nn.Conv2d(3, 8, 1), Clamped()), (3, 6, 5)),
    "max pooling": (nn.Sequential(nn.Conv2d(3, 16, 3), nn.MaxPool2d(3, 2, 1)), (3, 12, 12)),
    "mean pooling": (nn.Sequential(nn.Conv2d(3, 16, 3), nn.AvgPool2d(2)), (3, 12, 12)),
    "mean pooling at the edge": (
        nn.Sequential(nn.Conv2d(3, 5, 3), nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
        (3, 11, 12),
    ),
    "adaptive pooling": (nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(5)), (3, 12, 12)),
    "flatten, linear": (
        nn.Sequential(nn.Conv2d(3, 6, 3), nn.Flatten(), nn.Linear(96, 7)), (3, 6, 6),
    ),
    "activations": (
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 1), nn.Sigmoid(),
            nn.Conv2d(8, 8, 1), nn.SiLU(), nn.Conv2d(8, 8, 1), nn.Tanh(),
            nn.Conv2d(8, 8, 1), nn.ReLU6(), nn.Conv2d(8, 8, 1), nn.GELU(),
        ),
        (3, 8, 8),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_other_operators_are_within_a_step_of_the_quantized_graph(name: str) -> None:
    from edgekd.backends.tvm.integers.reading import in_float

    module, shape = OTHERS[name]
    graph, x = quantized(module, *shape)
    run, left = compiled(graph, x)
    assert in_float(graph) == []
    assert left.uncovered == []
    assert largest_step(graph, x, run) <= 1.01
