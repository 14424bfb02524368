"""Branches that are one convolution are merged into it, and others are left."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.export import export_graph

aten = torch.ops.aten


def norm(channels: int) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels)
    nn.init.uniform_(layer.running_mean, -1, 1)
    nn.init.uniform_(layer.running_var, 0.5, 2)
    nn.init.uniform_(layer.weight, 0.5, 2)
    nn.init.uniform_(layer.bias, -1, 1)
    return layer


class Block(nn.Module):
    """RepVGG's block: 3x3, 1x1 and, where it fits, the identity, each with its norm."""

    def __init__(self, before: int, behind: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        options = {"groups": groups, "bias": False, "stride": stride}
        self.three = nn.Sequential(nn.Conv2d(before, behind, 3, padding=1, **options), norm(behind))
        self.one = nn.Sequential(nn.Conv2d(before, behind, 1, **options), norm(behind))
        self.same = norm(before) if before == behind and stride == 1 else None

    def forward(self, x: Tensor) -> Tensor:
        total = self.three(x) + self.one(x)
        return torch.relu(total if self.same is None else total + self.same(x))


def convolutions(module: nn.Module, x: Tensor) -> int:
    """The layers left in the graph, which gives what the module gives."""
    graph = export_graph(module.eval(), x[:1])
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-5)
    assert not any(node.target is aten.batch_norm.default for node in graph.graph.nodes)
    return sum(node.target is aten.conv2d.default for node in graph.graph.nodes)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("behind", "stride"), [(4, 1), (8, 1), (8, 2), (4, 2)])
def test_a_re_parameterizable_block_becomes_one_convolution(behind, stride, groups):
    assert convolutions(Block(4, behind, stride, groups), torch.randn(2, 4, 6, 6)) == 1


def test_the_identity_adds_its_factor_in_the_middle_of_the_kernel():
    block = Block(1, 1)
    for part in (block.three[1], block.one[1], block.same):
        part.running_mean.zero_(), part.running_var.fill_(1.0)
        part.eps = 0.0
        nn.init.ones_(part.weight), nn.init.zeros_(part.bias)
    nn.init.constant_(block.three[0].weight, 2.0)
    nn.init.constant_(block.one[0].weight, 3.0)
    graph = export_graph(block.eval(), torch.randn(1, 1, 4, 4))
    layer = next(node for node in graph.graph.nodes if node.target is aten.conv2d.default)
    kernel = getattr(graph, layer.args[1].target)
    assert kernel.flatten().tolist() == [2, 2, 2, 2, 2 + 3 + 1, 2, 2, 2, 2]


class Apart(nn.Module):
    """Two convolutions that read different values, or whose results are read twice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.second = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(x)
        if self.how == "in a row":
            return first + self.second(first)
        if self.how == "read twice":
            return (first + self.second(x)) * first
        return first + self.second(torch.relu(x))


@pytest.mark.parametrize("how", ["in a row", "read twice", "other input"])
def test_branches_that_are_no_sum_of_one_input_stay(how):
    assert convolutions(Apart(how), torch.randn(2, 2, 5, 5)) == 2


class Looped(Block):
    """MobileOne's block: a sum that begins with 0."""

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor | int = 0
        total += 0 if self.same is None else self.same(x)
        for branch in (self.three, self.one):
            total = total + branch(x)
        return torch.relu(total)


@pytest.mark.parametrize("behind", [4, 8])
def test_a_sum_that_begins_with_zero_becomes_one_convolution_too(behind):
    assert convolutions(Looped(4, behind), torch.randn(2, 4, 6, 6)) == 1
