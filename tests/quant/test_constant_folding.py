"""What a graph computes from constants, sizes and types alone becomes a constant."""

import torch
from torch import Tensor, nn

from edgekd.quant.constants import constant_of, is_constant
from edgekd.quant.export import export_graph


class Anchors(nn.Module):
    """The points of a detection head, as ultralytics makes them: 2x3 cells of 8 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("stride", torch.tensor([8.0, 16.0]))

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = torch.arange(2).type_as(x) + 0.5, torch.arange(3).type_as(x) + 0.5
        rows, columns = torch.meshgrid(rows, columns, indexing="ij")
        points = torch.stack((columns, rows), -1).view(-1, 2)
        return x.mean() + points * x.new_full((6, 1), self.stride[0].item())


def test_the_anchors_of_a_detection_head_become_one_constant() -> None:
    graph = export_graph(Anchors(), torch.zeros(1, 3, 16, 24))
    kinds = [str(node.target) for node in graph.graph.nodes if node.op == "call_function"]
    assert kinds == ["aten.mean.default", "aten.add.Tensor"]
    (node,) = [each for each in graph.graph.nodes if is_constant(each)]
    # (column + 0.5, row + 0.5) times 8.
    expected = [[4.0, 4.0], [12.0, 4.0], [20.0, 4.0], [4.0, 12.0], [12.0, 12.0], [20.0, 12.0]]
    assert constant_of(graph, node).tolist() == expected


class Scaled(nn.Module):
    """A trained number is read as one, which training is to change."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor([2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + torch.ones_like(self.scale)


def test_what_reads_only_a_size_is_no_parameter_and_a_trained_number_stays_one() -> None:
    graph = export_graph(Scaled(), torch.zeros(1, 4))
    values = {name: value.tolist() for name, value in graph.named_parameters()}
    assert values == {"scale": [2.0]}
    assert [value.tolist() for value in graph.buffers()] == [[1.0]]
    assert torch.equal(graph(torch.full((2, 4), 3.0)), torch.full((2, 4), 7.0))
