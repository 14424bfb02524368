"""A module that is called twice is one layer, however torch.export records its second call."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.network.cost import layer_costs
from edgekd.network.fx_names import layer_of, module_paths
from edgekd.network.taps import layer_names
from edgekd.quant.export import export_graph
from edgekd.quant.quantizer import ANNOTATION, TargetQuantizer
from edgekd.values.target import Scheme


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.stem(self.stem(x).relu()))
        return y


def rename_second_call(graph: fx.GraphModule) -> None:
    """Record the second call of `stem.0` in the path too, as other releases of torch.export do."""
    last = [node for node in graph.graph.nodes if layer_of(node) == "stem.0"][-1]
    stack = dict(last.meta["nn_module_stack"])
    key = next(reversed(stack))
    last.meta["nn_module_stack"] = {**stack, key: ("L['self'].stem@1.0@1", stack[key][1])}


@pytest.fixture(params=["this release", "other releases"])
def graph(request: pytest.FixtureRequest) -> fx.GraphModule:
    exported = export_graph(Twice(), torch.zeros(2, 4))
    if request.param == "other releases":
        rename_second_call(exported)
    return exported


def linear_nodes(graph: fx.GraphModule) -> list[fx.Node]:
    return [node for node in graph.graph.nodes if "linear" in str(node.target)]


def test_both_calls_have_the_name_of_the_module(graph: fx.GraphModule) -> None:
    assert [layer_of(node) for node in linear_nodes(graph)] == ["stem.0", "stem.0", "head"]
    assert module_paths(linear_nodes(graph)[1]) == ["stem", "stem.0"]
    assert layer_names(graph) == ["stem", "stem.0", "head"]


def test_what_the_model_itself_computes_goes_by_the_name_of_its_node(graph: fx.GraphModule) -> None:
    (relu,) = [node for node in graph.graph.nodes if "relu" in str(node.target)]
    assert module_paths(relu) == []
    assert layer_of(relu) == relu.name


def test_a_layer_that_runs_twice_costs_two_runs_and_stores_its_weights_once(
    graph: fx.GraphModule,
) -> None:
    costs = {cost.name: cost for cost in layer_costs(graph, torch.zeros(1, 4))}
    assert list(costs) == ["stem.0", "head"]
    assert costs["stem.0"].macs == 2 * 4 * 4
    assert costs["stem.0"].parameters == 4 * 4 + 4
    assert costs["stem.0"].bytes == 4 * (4 * 4 + 4)


def test_an_ignored_layer_stays_in_float_in_both_calls(graph: fx.GraphModule) -> None:
    annotated = TargetQuantizer(Scheme(activations="int8-affine"), floats=["stem.0"]).annotate(
        graph
    )
    found = [ANNOTATION in node.meta for node in linear_nodes(annotated)]
    assert found == [False, False, True]
