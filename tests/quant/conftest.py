"""A small residual network in float and in int8, made once for all tests of `edgekd.quant`."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.models.resnet import resnet8
from edgekd.quant.qat import finish_qat, prepare_qat
from edgekd.values.target import Scheme

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def samples() -> Tensor:
    return torch.rand(32, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def network(samples: Tensor) -> nn.Module:
    """Widths (8, 16, 16), its batch statistics and affine parameters away from their defaults."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = resnet8(channels=1, widths=(8, 16, 16))
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -0.5, 0.5)
    with torch.no_grad():
        for _ in range(4):
            module(samples)
    return module.eval()


@pytest.fixture(scope="session")
def int8(network: nn.Module, samples: Tensor) -> fx.GraphModule:
    """That network on the grids of its fake-quantized graph, in x86's scheme."""
    scheme = Scheme(activations="uint8-affine", weight_bits=7)
    return finish_qat(prepare_qat(network, samples[:1], samples, scheme), samples[:1])
