"""Training in integers where a layer runs more than once, and where layers differ in their bits."""

import pytest
import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from edgekd.quant.inspection import output_scale
from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.post_training import PostTraining
from edgekd.quant.qat import finish_qat, freeze_ranges, prepare_qat
from edgekd.quant.rewrite import QUANTIZE, is_weight
from edgekd.values.target import Scheme

SCHEME = Scheme(activations="int8-affine")
SAMPLES = torch.randn(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class OneConvolution(nn.Module):
    """One kernel for two uses, each with a norm of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.shared = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.first, self.second = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(self.shared(self.stem(x))))
        return self.second(self.shared(x))


class OneNorm(nn.Module):
    """One norm behind two convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.deep, self.norm = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.deep(F.relu(self.norm(self.stem(x)))))


class OneBlock(nn.Module):
    """A convolution and its norm, twice, as in a network with tied weights."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 1)
        self.block = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.block(self.block(self.stem(x)))


SHARING = {"convolution": OneConvolution, "norm": OneNorm, "block": OneBlock}


def network(kind: type[nn.Module]) -> nn.Module:
    """With norms away from their defaults."""
    torch.manual_seed(0)
    module = kind()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 2)
            nn.init.uniform_(part.bias, -0.5, 0.5)
            nn.init.uniform_(part.running_mean, -0.5, 0.5)
            nn.init.uniform_(part.running_var, 0.5, 2)
    return module.eval()


def trained(graph: fx.GraphModule, steps: int = 4) -> fx.GraphModule:
    """After a few steps towards other outputs, with the ranges frozen at the end."""
    optimizer = torch.optim.SGD(graph.parameters(), 0.05)
    graph.train()
    for step in range(steps):
        if step == steps - 1:
            freeze_ranges(graph)
        optimizer.zero_grad()
        (graph(SAMPLES) - 0.3).square().mean().backward()
        optimizer.step()
    return graph.eval()


@pytest.mark.parametrize("name", SHARING)
def test_norms_are_folded_right_where_a_layer_is_shared(name):
    module = network(SHARING[name])
    graph = prepare_qat(module, SAMPLES[:1], SAMPLES, SCHEME)
    assert not any("batch_norm" in str(node.target) for node in graph.graph.nodes)
    with torch.no_grad():
        assert signal_to_noise(module(SAMPLES), graph(SAMPLES)) > 30


@pytest.mark.parametrize("name", SHARING)
def test_a_shared_layer_is_deployed_as_it_was_trained(name):
    graph = trained(prepare_qat(network(SHARING[name]), SAMPLES[:1], SAMPLES, SCHEME))
    with torch.no_grad():
        before = graph(SAMPLES)
        finished = finish_qat(graph, SAMPLES[:1])
        step = output_scale(finished)
        assert step is not None
        assert float((finished(SAMPLES) - before).abs().max()) <= 1.01 * step


def test_a_block_that_runs_twice_stays_one_weight_in_training():
    """What both uses teach is one change: after training there is one kernel."""
    graph = trained(prepare_qat(network(OneBlock), SAMPLES[:1], SAMPLES, SCHEME))
    finished = finish_qat(graph, SAMPLES[:1])
    kernels = [v for v in finished.buffers() if v.dtype is torch.int8 and v.shape == (4, 4, 3, 3)]
    assert len(kernels) == 1


@pytest.mark.parametrize("wide", [("stem",), ("shared",)])
def test_layers_in_16_bits_train_and_are_deployed_as_they_were_trained(wide):
    choices = PostTraining(wide=wide)
    module = network(OneConvolution)
    graph = trained(prepare_qat(module, SAMPLES[:1], SAMPLES, SCHEME, choices=choices))
    with torch.no_grad():
        before = graph(SAMPLES)
        finished = finish_qat(graph, SAMPLES[:1])
        step = output_scale(finished)
        assert step is not None
        assert float((finished(SAMPLES) - before).abs().max()) <= 1.01 * max(step, 1e-3)
    types = {n.args[-1] for n in finished.graph.nodes if n.target in QUANTIZE and not is_weight(n)}
    assert torch.int16 in types


def test_frozen_ranges_survive_a_saved_state():
    """A training that goes on from a checkpoint has the grids that were frozen."""
    module = network(OneConvolution)
    graph = trained(prepare_qat(module, SAMPLES[:1], SAMPLES, SCHEME))
    again = prepare_qat(module, SAMPLES[:1], SAMPLES[:4], SCHEME)
    again.load_state_dict(graph.state_dict())
    again.train()
    with torch.no_grad():
        again(100 * SAMPLES)
    again.eval()
    with torch.no_grad():
        assert torch.equal(again(SAMPLES), graph(SAMPLES))
