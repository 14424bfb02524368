"""The exported graph computes what the module does, without its batch norms."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.errors import InputError
from edgekd.models.ds_cnn import ds_cnn
from edgekd.models.sensor_cnn import sensor_cnn
from edgekd.quant.export import export_graph

aten = torch.ops.aten


def count(graph: fx.GraphModule, target: object) -> int:
    return sum(node.target is target for node in graph.graph.nodes)


def stirred(module: nn.Module) -> nn.Module:
    """The module in eval mode with batch norms that change something."""
    torch.manual_seed(1)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(part.running_mean, -1, 1)
            nn.init.uniform_(part.running_var, 0.5, 2)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.uniform_(part.bias, -1, 1)
    return module.eval()


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4)), (2, 8, 8)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)), (2, 8, 8)),
        (nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.BatchNorm2d(4, affine=False)), (4, 8, 8)),
        (nn.Sequential(nn.Conv2d(2, 4, 3, padding="same"), nn.BatchNorm2d(4)), (2, 8, 8)),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)), (2, 8)),
        (nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)), (3,)),
        (ds_cnn(width=8, blocks=2, small_stem=True), (1, 8, 8)),
        (sensor_cnn(widths=(8, 8), kernels=(3, 3)), (3, 16)),
    ],
    ids=["conv", "no-bias", "depthwise", "same", "conv1d", "linear", "ds-cnn", "sensor"],
)
def test_folding_batch_norms_leaves_the_function_as_it_was(module, shape):
    module, x = stirred(module), torch.rand(8, *shape)
    graph = export_graph(module, x[:1])
    assert count(graph, aten.batch_norm.default) == 0
    assert not any("running" in name for name, _ in graph.named_buffers())
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), rtol=1e-5, atol=1e-5)


def test_a_residual_network_is_folded_whole(network, samples):
    graph = export_graph(network, samples[:1])
    assert count(graph, aten.batch_norm.default) == 0
    assert count(graph, aten.conv2d.default) == 9
    with torch.no_grad():
        assert torch.allclose(graph(samples), network(samples), rtol=1e-5, atol=1e-5)


def test_folding_gives_the_numbers_worked_out_by_hand():
    module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)).eval()
    linear, norm = module
    for tensor, value in [
        (linear.weight, 3.0), (linear.bias, 1.0), (norm.running_mean, 2.0),
        (norm.running_var, 4.0), (norm.weight, 6.0), (norm.bias, 0.5),
    ]:  # fmt: skip
        tensor.data.fill_(value)
    graph = export_graph(module, torch.rand(1, 1))
    # 6 * (3 x + 1 - 2) / 2 + 0.5 = 9 x - 2.5
    assert sorted(value.item() for value in graph.parameters()) == [-2.5, 9.0]


class Shared(nn.Module):
    """A convolution that is read both with and without its norm."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y + self.norm(y)


def test_a_norm_is_not_folded_into_a_layer_that_something_else_reads():
    module, x = stirred(Shared()), torch.rand(4, 1, 6, 6)
    graph = export_graph(module, x[:1])
    assert count(graph, aten.batch_norm.default) == 1
    with torch.no_grad():
        assert torch.allclose(graph(x), module(x), atol=1e-6)


def test_the_module_is_left_as_it_was(network, samples):
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    export_graph(network, samples[:1])
    still = network.training
    network.eval()
    assert still
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_dropout_is_gone():
    graph = export_graph(nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5)).train(), torch.rand(1, 3))
    assert count(graph, aten.dropout.default) == 0


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_the_batch_size_is_free(network, samples, batch):
    assert export_graph(network, samples[:1])(samples[:batch]).shape == (batch, 10)


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + 1 if x.sum() > 0 else x


class OneBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, 3)


@pytest.mark.parametrize("module", [Branching(), OneBatch()])
def test_a_model_that_cannot_be_traced_for_any_batch_is_one_clear_error(module):
    with pytest.raises(InputError, match=r"torch\.export can't trace this model") as caught:
        export_graph(module, torch.rand(1, 3), "stages.1")
    assert caught.value.where == "stages.1"
    assert "forward() must not branch on tensor values or fix the batch size" in caught.value.hint
    assert "\n" not in str(caught.value.args[0])
