"""Values beyond the grids on samples that did not set them."""

import pytest
import torch
from torch import nn

from edgekd.quant.calibration import calibrate
from edgekd.quant.saturation import saturation_note, saturations
from edgekd.values.target import Scheme


def test_the_share_of_clipped_values_is_counted_by_layer():
    layer = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        layer.weight.fill_(1.0)
    x = torch.linspace(0, 1, 64)[:, None]
    graph = calibrate(layer, x[:1], x, Scheme(activations="int8-affine"))
    fresh = torch.tensor([[0.5], [0.9], [1.5], [-0.5]])
    found = saturations(graph, fresh)
    assert next(iter(found.values())) == pytest.approx(0.5)  # 1.5 and -0.5
    note = saturation_note(graph, fresh)
    assert note.startswith("clips values of other training samples: ")
    assert "50.0%" in note


def test_samples_like_those_of_calibration_need_no_note(int8, samples):
    assert saturation_note(int8, samples) == ""
