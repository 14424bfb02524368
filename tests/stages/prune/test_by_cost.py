"""How many units each layer keeps so that the outputs change least at a given cost."""

import numpy as np
import pytest
import torch
from torch import nn

from edgekd.data.samples import Samples
from edgekd.network.cost import totals
from edgekd.stages._knapsack import knapsack
from edgekd.stages.prune.allocation import Pool
from edgekd.stages.prune.by_cost import (
    NetworkCost,
    Part,
    by_cost,
    network_cost,
    output_error,
)
from edgekd.stages.prune.channels import channel_groups, remove_channels


def test_the_knapsack_takes_the_least_damage_within_the_limit():
    damages, costs = [[0.0, 1.0, 5.0], [0.0, 2.0]], [[10.0, 6.0, 1.0], [10.0, 4.0]]
    assert knapsack(damages, costs, 20.0) == [0, 0]
    assert knapsack(damages, costs, 16.0) == [1, 0]
    # A greedy choice of the best damage per cost ends with both reduced, 3; one alone is enough.
    assert knapsack(damages, costs, 14.0) == [0, 1]
    assert knapsack(damages, costs, 10.0) == [1, 1]
    assert knapsack(damages, costs, 4.9) is None
    assert knapsack([], [], 0.0) == []


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("measure", ["macs", "parameters"])
def test_the_cost_is_that_of_the_network_when_it_is_really_cut(measure):
    module, x = net(), torch.rand(1, 2, 5, 5)
    groups = [group for group in channel_groups(module, x) if group.can_go]
    cost = network_cost(module, x, groups, measure)
    assert cost.units == {"0": 8, "3": 4}
    assert cost.total(cost.units) == getattr(totals(module, x), measure)
    smaller = remove_channels(module, x, {"0": [0, 1, 2], "3": [1]}, groups)
    # 25 positions: 5*2*9 + 3*5 products each, and 3*3 of the linear layer.
    assert totals(smaller, x).macs == 25 * (5 * 18 + 3 * 5) + 9
    kept = {"0": 5, "3": 3}
    assert cost.total(kept) == pytest.approx(getattr(totals(smaller, x), measure))
    before = {"0": 8, "3": 3}
    assert cost.changes(before, "0", [5]) == [pytest.approx(cost.total(kept) - cost.total(before))]


def test_the_error_of_the_outputs_is_a_share_of_their_squares():
    class Scaled(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor

        def forward(self, x):
            return self.factor * x

    samples = Samples(torch.rand(6, 3), torch.zeros(6, dtype=torch.int64))
    error = output_error(Scaled(1.0), samples)
    assert error(Scaled(1.0)) == 0.0
    assert error(Scaled(0.9)) == pytest.approx(0.01)
    assert error(Scaled(0.0)) == pytest.approx(1.0)


def pool(name, units, step=1):
    return Pool(name, torch.rand(units), units, step)


COST = NetworkCost({"a": 10, "b": 10}, (Part(100.0, ({"a": 1.0},)), Part(100.0, ({"b": 1.0},))))


def test_what_harms_less_loses_more():
    errors = {"a": [(0.5, 0.1), (1.0, 1.0)], "b": [(0.5, 0.01), (1.0, 0.03)]}
    kept = by_cost([pool("a", 10), pool("b", 10)], errors, COST, 120.0)
    # 8 units have to go: "b" costs 0.002 of error for each of its first five, 0.004 for the next.
    assert kept == {"a": 10, "b": 2}
    assert by_cost([pool("a", 10), pool("b", 10)], errors, COST, 200.0) == {"a": 10, "b": 10}


def test_counts_are_multiples_and_a_limit_out_of_reach_leaves_the_floor():
    errors = {"a": [(1.0, 1.0)], "b": [(1.0, 0.1)]}
    pools = [pool("a", 10, step=4), pool("b", 10, step=4)]
    assert by_cost(pools, errors, COST, 145.0) == {"a": 10, "b": 4}
    assert by_cost(pools, errors, COST, 1.0) == {"a": 4, "b": 4}


def test_layers_that_multiply_each_others_cost_come_close_to_the_best_of_all_choices():
    both = Part(1000.0, ({"a": 1.0}, {"b": 1.0}))
    chain = NetworkCost(
        {"a": 20, "b": 20}, (Part(10.0, ({"a": 1.0},)), both, Part(5.0, ({"b": 1.0},)))
    )
    errors = {"a": [(0.5, 0.3), (1.0, 1.0)], "b": [(0.5, 0.1), (1.0, 1.0)]}

    def damage(a, b):
        gone = [1 - a / 20, 1 - b / 20]
        return float(np.interp(gone[0], [0, 0.5, 1], [0, 0.3, 1.0])) + float(
            np.interp(gone[1], [0, 0.5, 1], [0, 0.1, 1.0])
        )

    pools = [pool("a", 20), pool("b", 20)]
    for limit in (800.0, 500.0, 200.0, 50.0):
        kept = by_cost(pools, errors, chain, limit)
        assert chain.total(kept) <= limit
        every = [{"a": a, "b": b} for a in range(1, 21) for b in range(1, 21)]
        best = min(damage(**one) for one in every if chain.total(one) <= limit)
        assert damage(**kept) <= 1.05 * best
