"""A network that is exported again gives a copy of the first graph, unless something changed."""

from unittest import mock

import pytest
import torch
from torch import nn

from edgekd.quant import export, exports_kept
from edgekd.quant.export import export_graph

X = torch.randn(2, 3, 8, 8)


@pytest.fixture
def module():
    exports_kept._last.clear()
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()


@pytest.fixture
def traces():
    with mock.patch.object(export, "_export", side_effect=export._export) as traced:
        yield traced


def test_the_same_network_is_traced_once_and_its_graphs_are_apart(module, traces):
    first = export_graph(module, X)
    weight = next(first.parameters())
    weight.data.zero_()
    second = export_graph(module, torch.randn(5, 3, 8, 8))
    assert traces.call_count == 1
    assert torch.allclose(second(X), module(X))
    assert {node.name for node in second.graph.nodes} == {node.name for node in first.graph.nodes}


@pytest.mark.parametrize("change", ["weight", "attribute", "size", "option", "part"])
def test_a_network_that_changed_is_traced_again(change, module, traces):
    export_graph(module, X)
    x = X
    if change == "weight":
        module[0].weight.data[0, 0, 0, 0] += 1
    elif change == "attribute":
        module[0].padding = (1, 1)
    elif change == "size":
        x = torch.randn(2, 3, 9, 9)
    elif change == "part":
        module[1] = nn.Sigmoid()
    graph = export_graph(module, x, keep_layers=change == "option")
    assert traces.call_count == 2
    assert torch.allclose(graph(x), module(x), atol=1e-6)


def test_a_network_that_is_gone_leaves_no_graph_behind(module):
    kept = nn.Sequential(nn.Linear(3, 3))
    export_graph(kept, torch.randn(2, 3))
    assert len(exports_kept._last) == 1
    del kept
    assert not exports_kept._last
