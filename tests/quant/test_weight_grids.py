"""Every layer's weights use the whole grid and none saturates, whatever kind the layer is of."""

import pytest
import torch
from torch import Tensor, nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.post_training import PostTraining
from edgekd.quant.rewrite import QUANTIZE
from edgekd.values.target import Scheme

SEVEN = Scheme(activations="uint8-affine", weight_bits=7)
EIGHT = Scheme(activations="int8-affine")


def snr(expected: Tensor, found: Tensor) -> float:
    """Signal to noise in decibels."""
    noise = (expected - found).double().square().sum()
    return float(10 * torch.log10(expected.double().square().sum() / noise))


LAYERS = {
    "conv2d": lambda: nn.Conv2d(16, 16, 3, padding=1),
    "same": lambda: nn.Conv2d(16, 16, 3, padding="same"),
    "depthwise": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=16),
    "depthwise-multiplier": lambda: nn.Conv2d(16, 32, 3, padding=1, groups=16),
    "grouped": lambda: nn.Conv2d(16, 16, 3, padding=1, groups=4),
    "one-channel": lambda: nn.Sequential(nn.Conv2d(16, 1, 1), nn.Conv2d(1, 16, 3, padding=1)),
    "conv1d": lambda: nn.Conv1d(16, 16, 3, padding=1),
    "depthwise1d": lambda: nn.Conv1d(16, 16, 3, padding=1, groups=16),
    "linear": lambda: nn.Linear(8, 16),
}


def spread(module: nn.Module) -> nn.Module:
    """Channels whose weights differ fifty-fold, as those of trained networks do."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.Conv1d | nn.Conv2d | nn.Linear):
                factors = torch.logspace(0, 1.7, len(part.weight))
                part.weight.mul_(factors.view(-1, *[1] * (part.weight.dim() - 1)))
    return module.eval()


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scheme", [SEVEN, EIGHT], ids=["7-bit", "8-bit"])
def test_each_channel_reaches_the_end_of_the_grid_and_no_weight_saturates(kind, scheme):
    torch.manual_seed(0)
    module = spread(LAYERS[kind]())
    x = torch.randn(16, 16, 8) if "1d" in kind else torch.randn(16, 16, 8, 8)
    graph = calibrate(module, x[:1], x, scheme)
    limit = 63 if scheme.weight_bits == 7 else 127
    state = dict(graph.named_buffers())
    weights = [v for v in state.values() if v.dtype is torch.int8 and v.dim() > 1]
    floats = [p for p in module.parameters() if p.dim() > 1]
    assert len(weights) == len(floats)
    for found in weights:
        assert found.flatten(1).abs().amax(1).tolist() == [limit] * len(found)
    with torch.no_grad():
        assert snr(module(x), graph(x)) > 30


def test_smooth_quant_moves_weights_first_and_the_grid_follows_them():
    torch.manual_seed(0)
    layer, x = nn.Linear(8, 8), torch.randn(64, 8)
    x[:, 0] *= 100.0
    graph = calibrate(layer, x[:1], x, SEVEN, PostTraining(smooth_quant=True))
    (weight,) = [v for v in graph.buffers() if v.dtype is torch.int8 and v.dim() > 1]
    assert weight.abs().amax(1).tolist() == [63] * 8


def test_a_layer_that_stays_in_float_is_left_alone():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    x = torch.rand(8, 4)
    graph = calibrate(module, x[:1], x, SEVEN, floats=["0"])
    floats = [p for p in graph.parameters() if p.dim() == 2]
    assert len(floats) == 1
    assert torch.equal(floats[0], module[0].weight)
    assert not any(n.target in QUANTIZE and n.args[0].op == "get_attr" for n in graph.graph.nodes)
