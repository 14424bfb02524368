"""Parameters, multiply-accumulates and bytes, against numbers worked out by hand."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.models.resnet import resnet8
from edgekd.network.cost import largest_layer, layer_costs, parameter_count, totals

torch.set_num_threads(1)


def test_a_convolution_costs_its_kernel_at_every_output_position() -> None:
    layer = nn.Conv2d(3, 8, 3, stride=2, padding=1)
    (cost,) = layer_costs(nn.Sequential(layer), torch.zeros(1, 3, 10, 10))
    assert (cost.name, cost.kind) == ("0", "convolution")
    assert cost.parameters == 3 * 8 * 9 + 8
    assert cost.macs == 8 * 5 * 5 * 3 * 9
    assert cost.output_shape == (1, 8, 5, 5)
    assert cost.bytes == 4 * cost.parameters


@pytest.mark.parametrize(("groups", "kind"), [(2, "grouped"), (4, "depthwise")])
def test_groups_divide_the_cost(groups: int, kind: str) -> None:
    (cost,) = layer_costs(nn.Sequential(nn.Conv2d(4, 4, 3, groups=groups)), torch.zeros(1, 4, 5, 5))
    assert cost.kind == kind
    assert cost.macs == 4 * 3 * 3 * (4 // groups) * 9


def test_a_linear_layer_on_a_sequence_costs_once_for_each_position() -> None:
    (cost,) = layer_costs(nn.Sequential(nn.Linear(6, 4)), torch.zeros(1, 7, 6))
    assert (cost.kind, cost.macs, cost.parameters) == ("linear", 7 * 6 * 4, 28)
    assert cost.output_shape == (1, 7, 4)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.q(x)
        fused = nn.functional.scaled_dot_product_attention(y[:, None], y[:, None], y[:, None])
        return fused[:, 0] + (y @ y.transpose(1, 2)) @ y


def test_functional_products_are_booked_on_the_module_that_runs_them() -> None:
    costs = {cost.name: cost for cost in layer_costs(Attention(), torch.randn(1, 5, 8))}
    assert costs["q"].macs == 5 * 8 * 8
    assert costs[""].macs == 2 * (5 * 5 * 8 + 5 * 5 * 8)


def test_a_recurrent_layer_is_counted_in_every_step() -> None:
    (cost,) = layer_costs(nn.Sequential(nn.LSTM(8, 6, batch_first=True)), torch.zeros(1, 5, 8))
    assert cost.macs == 5 * 4 * 6 * (8 + 6)


def test_a_layer_used_twice_has_its_macs_twice_and_its_parameters_once() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer)
    assert totals(model, torch.zeros(1, 4)).macs == 2 * 16
    assert totals(model, torch.zeros(1, 4)).parameters == 20


def test_a_resnet_costs_the_same_as_a_module_and_as_an_exported_graph() -> None:
    model, example = resnet8().eval(), torch.randn(1, 3, 32, 32)
    graph = torch.export.export(model, (example,)).module()
    assert totals(model, example).macs == 12_501_632  # MLPerf Tiny gives 12.5 M
    assert totals(graph, example) == totals(model, example)
    module_macs = {cost.name: cost.macs for cost in layer_costs(model, example) if cost.macs}
    graph_macs = {cost.name: cost.macs for cost in layer_costs(graph, example) if cost.macs}
    assert graph_macs == module_macs
    assert sum(cost.parameters for cost in layer_costs(graph, example)) == parameter_count(model)


def test_bytes_are_parameters_and_batch_norm_statistics() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    assert totals(model, torch.zeros(1, 1, 3, 3)).bytes == 4 * (2 + 2 + 4 + 4)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = resnet8().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    layer_costs(model, torch.randn(1, 3, 32, 32))
    assert model.training
    assert not any(part._forward_hooks for part in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_the_largest_layer_counts_what_goes_in_and_what_comes_out():
    module = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),  # 2x6x6 in, 4x6x6 out: 216
        nn.BatchNorm2d(4),  # 288, but it is folded into the convolution
        nn.Conv2d(4, 1, 3),  # 4x6x6 in, 1x4x4 out: 160
        nn.Flatten(),
        nn.Linear(16, 3),
    )
    assert largest_layer(module, torch.zeros(5, 2, 6, 6)) == 216
    assert module.training


def test_an_exported_assertion_about_a_weight_costs_nothing():
    class Cast(nn.Module):
        """A cast to the type that the weight has, which torch.export turns into an assertion."""

        def __init__(self) -> None:
            super().__init__()
            self.places = nn.Embedding(4, 6)
            self.head = nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(x + self.places.weight.to(torch.float32))

    x = torch.randn(1, 4, 6)
    graph = torch.export.export(Cast().eval(), (x,)).module()
    kinds = [str(node.target) for node in graph.graph.nodes]
    assert any("_assert_tensor_metadata" in kind for kind in kinds)
    assert totals(graph, x).parameters == 4 * 6 + 6 * 2 + 2
