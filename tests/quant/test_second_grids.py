"""A value that is put on two grids is rounded once, and clipped where the second one ends."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.second_grids import QUANTIZE
from edgekd.values.target import Scheme

INT8 = Scheme(activations="int8-affine")


class Joined(nn.Module):
    """x >= 0, joined with 10 x - 5."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(1, 1, 1, bias=False)
        self.other = nn.Conv2d(1, 1, 1)
        self.last = nn.Conv2d(2, 1, 1)
        with torch.no_grad():
            self.one.weight.fill_(1.0)
            self.other.weight.fill_(10.0)
            self.other.bias.fill_(-5.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat([torch.relu(self.one(x)), self.other(x)], 1))


def ends(graph) -> dict[str, tuple[float, float]]:
    found = {}
    for node in graph.graph.nodes:
        if node.target is QUANTIZE:
            _, scale, zero, low, high = node.args[:5]
            found[node.name] = ((low - zero) * scale, (high - zero) * scale)
    return found


def test_the_first_of_two_grids_has_the_step_of_the_second_and_ends_no_earlier():
    x = torch.linspace(0, 1, 64).view(1, 1, 8, 8)
    graph = calibrate(Joined(), x, x, INT8)
    (relu,) = [node for node in graph.graph.nodes if node.target is torch.ops.aten.relu.default]
    (first,) = relu.users
    (second,) = [user for each in first.users for user in each.users]
    assert second.target is QUANTIZE
    low, high = ends(graph)[first.name]
    assert low == 0.0
    assert first.args[1] == second.args[1] == pytest.approx(10 / 255, rel=0.01)  # from -5 to 5
    assert high == pytest.approx(10.0, rel=0.01)  # where the values themselves end at 1


class Shuffled(nn.Module):
    """Halves of clamped values that are joined again and again, as ShuffleNet's are."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(2, 2, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([torch.relu(self.one(x)), torch.relu(self.two(x))], 1)
        for _ in range(2):
            kept, worked = x.chunk(2, 1)
            x = torch.cat([kept, torch.relu(self.three(worked))], 1)
            x = x.view(-1, 2, 2, 4, 4).transpose(1, 2).reshape(-1, 4, 4, 4)
        return x.mean((2, 3))


def test_clamped_values_that_are_joined_again_stay_on_one_grid():
    torch.manual_seed(0)
    x = torch.rand(8, 2, 4, 4)
    graph = calibrate(Shuffled(), x[:1], x, INT8)
    relus = [node for node in graph.graph.nodes if node.target is torch.ops.aten.relu.default]
    quantized = [next(iter(node.users)) for node in relus]
    assert len(quantized) == 4
    assert len({node.args[1:3] for node in quantized}) == 1


class Gated(nn.Module):
    """A product that is far below zero in most places, clamped."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x * torch.tensor(0.5) * x.mean((2, 3), keepdim=True))


def test_a_product_that_is_clamped_has_the_grid_of_the_clamp_alone():
    x = torch.linspace(-20, 1, 64).view(1, 1, 8, 8)
    graph = calibrate(nn.Sequential(nn.Conv2d(1, 1, 1), Gated()), x, x, INT8)
    (relu,) = [node for node in graph.graph.nodes if node.target is torch.ops.aten.relu.default]
    assert relu.args[0].target is torch.ops.aten.mul.Tensor
