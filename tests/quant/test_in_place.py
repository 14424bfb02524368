"""Activations in place become plain operators without another trace, unless memory is shared."""

import copy
from unittest import mock

import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from edgekd.quant.export import export_graph

torch.manual_seed(0)
CONVOLUTION = nn.Conv2d(3, 4, 3)


class Changing(nn.Module):
    def __init__(self, change):
        super().__init__()
        self.convolution = copy.deepcopy(CONVOLUTION)
        self.change = change

    def forward(self, x):
        return self.change(self.convolution(x))


def overwritten_after_a_sum(x):
    doubled = x + x
    return doubled + x.relu_()


def overwritten_twice(x):
    x.relu_()
    x.mul_(0.5)
    return x + 1


def scaled_sum(x):
    x.add_(x * x, alpha=-0.5)
    return x


def a_view_of_it_is_read(x):
    rows = x.flatten(1)
    x.relu_()
    return rows


def it_is_a_view(x):
    x[:, 1].relu_()
    return x


def read_through_dropout(x):
    same = nn.functional.dropout(x, training=False)
    x.relu_()
    return same


ALONE = [overwritten_after_a_sum, overwritten_twice, scaled_sum, read_through_dropout]
SHARED = [a_view_of_it_is_read, it_is_a_view]


def _difference(change):
    module, x = Changing(change).eval(), torch.randn(2, 3, 8, 8)
    graph = export_graph(module, x)
    return (graph(x) - module(x.clone())).abs().max().item(), graph


@pytest.mark.parametrize("change", ALONE)
def test_what_nothing_else_shares_is_replaced_without_another_trace(change):
    with mock.patch.object(ExportedProgram, "run_decompositions", side_effect=AssertionError):
        difference, graph = _difference(change)
    assert difference <= 1e-6
    assert not any(str(node.target).split(".")[1:2] == ["relu_"] for node in graph.graph.nodes)


@pytest.mark.parametrize("change", SHARED)
def test_what_shares_memory_is_traced_again(change):
    again = mock.patch.object(
        ExportedProgram, "run_decompositions", autospec=True,
        side_effect=ExportedProgram.run_decompositions,
    )  # fmt: skip
    with again as traced:
        difference, _ = _difference(change)
    assert difference <= 1e-6
    assert traced.call_count == 1
