"""A stage says which share of the network it left alone."""

import torch
from torch import nn

from edgekd.network.cost import layer_costs
from edgekd.stages._coverage import Share, changed_layers, untouched


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3, bias=False), nn.LayerNorm(3))


def test_shares_are_those_of_parameters_and_macs_by_kind() -> None:
    # Parameters: 4 * 6 + 6 = 30, 6 * 3 = 18 and 6 of the norm; MACs: 24 and 18.
    line = untouched(network(), torch.zeros(1, 4), ["0"])
    assert line == (
        "untouched: 44% of the parameters, 43% of the MACs (linear 33% and 43%, norm 11% and 0%)"
    )


def test_nothing_is_said_where_everything_was_touched() -> None:
    assert untouched(network(), torch.zeros(1, 4), ["0", "1", "2", "3"]) == ""


def test_a_layer_is_changed_where_a_shape_is_another_or_gone() -> None:
    before, after = network(), network()
    after[0] = nn.Linear(4, 5)
    after[3] = nn.Identity()
    assert changed_layers(before, after) == {"0", "3"}


def test_less_than_the_least_share_is_refused_with_the_layers_that_stay_and_why() -> None:
    costs = tuple(layer_costs(network(), torch.zeros(1, 4)))
    share = Share(costs, ["0"], {"2": "rank 3 is full already"})
    assert share.faults("factorize", 0.5, "stages.1") == []  # 24 of 42 MACs
    (fault,) = share.faults("factorize", 0.6, "stages.1")
    assert fault.message == (
        "factorize could touch 57% of the multiply-accumulates of layers with weights; these would "
        "stay: 2 (rank 3 is full already, 43%)"
    )
    assert (fault.where, fault.allowed) == ("stages.1.least", "at least 60%")
    assert "least = 0.57" in fault.hint
    assert Share(costs, ["0"], {}, ("2",)).faults("factorize", 1.0, "stages.1") == []
