"""What the plan says of recurrent layers."""

import torch
from torch import nn

from edgekd.network.recurrent import recurrent_steps, unrolling_notes


class Net(nn.Module):
    def __init__(self, layer: nn.RNNBase) -> None:
        super().__init__()
        self.encoder = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.encoder(x)[0]


def test_steps_count_for_every_direction_and_layer() -> None:
    net = Net(nn.LSTM(4, 3, 2, batch_first=True, bidirectional=True))
    assert recurrent_steps(net, torch.rand(1, 7, 4)) == {"encoder": 4 * 7}
    assert recurrent_steps(Net(nn.GRU(4, 3)), torch.rand(7, 1, 4)) == {"encoder": 7}


def test_the_plan_says_how_far_a_layer_is_unrolled_and_what_a_long_one_costs() -> None:
    net = Net(nn.GRU(4, 3, batch_first=True))
    (short,) = unrolling_notes(net, torch.rand(1, 20, 4))
    assert short.startswith("recurrent layer 'encoder' is unrolled to 20 steps")
    assert "kB" not in short
    (long,) = unrolling_notes(net, torch.rand(1, 200, 4))
    assert "about 800 kB of operators in a TFLite file" in long


def test_a_network_without_recurrent_layers_has_no_notes() -> None:
    assert unrolling_notes(nn.Linear(4, 3), torch.rand(1, 4)) == []
