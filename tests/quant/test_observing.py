"""Ranges of fake quantizers that are set from samples."""

import torch
from torch import Tensor, nn

from edgekd.quant.layer_noise import signal_to_noise
from edgekd.quant.qat import prepare_qat
from edgekd.values.target import Scheme


class Gate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.last(torch.sigmoid(self.first(x)))
        return output


def test_fixed_grids_hold_before_the_first_step_of_training():
    module = Gate().eval()
    samples = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    graph = prepare_qat(module, samples[:1], samples, Scheme(activations="int8-affine"))
    with torch.no_grad():
        assert signal_to_noise(module(samples), graph(samples)) > 35
