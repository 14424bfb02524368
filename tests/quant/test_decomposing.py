"""Operators rewritten as others that have integer kernels compute the same function."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.quant.calibration import calibrate
from edgekd.quant.coarse_softmax import ON_OWN_GRID, free_softmax
from edgekd.quant.decomposing import decompose
from edgekd.quant.export import export_graph
from edgekd.quant.inspection import float_islands
from edgekd.quant.transposed import phases
from edgekd.values.target import Scheme

aten = torch.ops.aten
AFFINE = Scheme(activations="int8-affine")


def kinds_after(module: nn.Module, x: Tensor) -> list[str]:
    """The operators of the rewritten graph, which computes what the module does."""
    graph = export_graph(module.eval(), x[:1])
    decompose(graph)
    with torch.no_grad():
        assert torch.allclose(graph(x.clone()), module(x.clone()), atol=2e-5)
    called = [node for node in graph.graph.nodes if node.op == "call_function"]
    return [str(node.target).split(".")[1] for node in called]


class Calling(nn.Module):
    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.function(x)  # type: ignore[operator]
        return output


@pytest.mark.parametrize(
    ("function", "kinds"),
    [
        (F.silu, ["sigmoid", "mul"]),
        (lambda x: F.silu(x.clone(), inplace=True), ["sigmoid", "mul"]),
        (F.hardsigmoid, ["add", "relu6", "mul"]),
        (F.hardswish, ["add", "relu6", "mul", "mul"]),
        (lambda x: x[:, torch.tensor([2, 0, 1])], ["index_select"]),
        (lambda x: F.scaled_dot_product_attention(x, x, x),
         ["mul", "transpose", "matmul", "softmax", "matmul"]),
        (lambda x: x.gather(1, torch.tensor([2, 0]).view(1, 2, 1, 1).expand(x.shape[0], -1, 4, 4)),
         ["index_select"]),
        (lambda x: x.gather(1, torch.tensor([2, 0, 1]).view(1, 3, 1, 1).expand_as(x)),
         ["index_select"]),
        (lambda x: x.gather(-1, torch.eye(4, dtype=torch.int64).expand_as(x)),
         ["expand_as", "gather"]),
        (lambda x: x[:, :1].softmax(1), ["slice", "mul", "add"]),
        (lambda x: F.scaled_dot_product_attention(x[:, :, :1], x[:, :, :1], x[:, :, :1]),
         ["slice", "slice", "slice", "mul", "transpose", "matmul", "mul", "add", "matmul"]),
        (lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
         ["mul", "transpose", "matmul", "where", "softmax", "matmul"]),
    ],
)  # fmt: skip
def test_a_rewritten_function_gives_the_same_values(function, kinds):
    found = kinds_after(Calling(function), torch.randn(3, 3, 4, 4) * 4)
    assert [kind for kind in found if kind != "clone"] == kinds


TRANSPOSED = [
    (kernel, stride, padding, more, groups, rank)
    for kernel, stride, padding, more, groups, rank in itertools.product(
        (1, 2, 3, 4), (1, 2, 3), (0, 1), (0, 1), (1, 2), (1, 2)
    )
    if more < stride and padding < kernel and (groups, rank) != (2, 1) and kernel + more > padding
]


@pytest.mark.parametrize("case", TRANSPOSED[::3], ids=str)
def test_a_transposed_convolution_is_a_convolution_and_a_shuffle(case):
    kernel, stride, padding, more, groups, rank = case
    layer, norm = (
        (nn.ConvTranspose2d, nn.BatchNorm2d) if rank == 2 else (nn.ConvTranspose1d, nn.BatchNorm1d)
    )
    torch.manual_seed(0)
    module = nn.Sequential(layer(4, 6, kernel, stride, padding, more, groups), norm(6), nn.ReLU())
    nn.init.uniform_(module[1].running_mean, -1, 1)
    nn.init.uniform_(module[1].running_var, 0.5, 2)
    found = kinds_after(module, torch.randn(2, 4, *(5, 4)[:rank]))
    assert not any("transpose" in kind and kind != "transpose" for kind in found)
    assert "batch_norm" not in found


def test_a_kernel_of_three_at_stride_two_becomes_two_phases_of_two():
    weight = torch.tensor([[[1.0, 2.0, 3.0]]])
    # out[2 q] = x[q] w[0] + x[q - 1] w[2], out[2 q + 1] = x[q] w[1]; the older input comes first.
    assert phases(weight, 2, 1).tolist() == [[[3.0, 1.0]], [[0.0, 2.0]]]


class PreActivation(nn.Module):
    """A batch norm that reads a sum, as in DenseNet and ResNet v2."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm = norm
        for value, low, high in ((norm.running_mean, -1, 1), (norm.running_var, 0.01, 9)):
            nn.init.uniform_(value, low, high)
        nn.init.uniform_(norm.weight, 0.1, 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.norm(x + 1.0))


@pytest.mark.parametrize(
    ("norm", "shape", "kinds"),
    [
        (nn.BatchNorm2d(8), (8, 4, 4), ["add", "conv2d", "relu"]),
        (nn.BatchNorm1d(8), (8, 4), ["add", "conv1d", "relu"]),
        (nn.BatchNorm1d(8), (8,), ["add", "mul", "add", "relu"]),
    ],
)
def test_a_norm_without_a_layer_scales_each_channel(norm, shape, kinds):
    module = PreActivation(norm)
    x = torch.randn(16, *shape, generator=torch.Generator().manual_seed(0))
    assert kinds_after(module, x) == kinds
    graph = calibrate(module, x[:1], x, AFFINE)
    assert float_islands(graph) == []


def test_a_sequence_s_layer_is_one_of_rows_with_its_clamp():
    module = nn.Sequential(nn.Linear(4, 6), nn.ReLU())
    assert kinds_after(module, torch.randn(3, 5, 4)) == ["reshape", "linear", "relu", "reshape"]


class Columns(nn.Module):
    """transformers' Conv1D: the weight is (in, out)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(6))

    def forward(self, x: Tensor) -> Tensor:
        rows = torch.addmm(self.bias, x.view(-1, 4), self.weight)
        return rows.view(-1, 5, 6) + (x @ self.weight)


def test_a_product_with_a_constant_matrix_is_a_layer():
    graph = export_graph(Columns(), torch.randn(1, 5, 4))
    layers = [node for node in graph.graph.nodes if node.target is aten.linear.default]
    assert [len(node.args) for node in layers] == [3, 3]
    assert kinds_after(Columns(), torch.randn(2, 5, 4)).count("linear") == 2


def test_a_softmax_over_many_values_gets_a_grid_of_its_own():
    for tokens, own in ((8, False), (300, True)):
        module = nn.Sequential(nn.Linear(4, tokens), nn.Softmax(1), nn.Linear(tokens, 3))
        graph = export_graph(module, torch.randn(1, 4))
        notes = free_softmax(graph, torch.randn(16, 4))
        assert any(node.target is ON_OWN_GRID for node in graph.graph.nodes) is own
        assert bool(notes) is own
