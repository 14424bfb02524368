"""An ONNX file alone, calibrated by NNCF."""

import pytest
import torch
from torch import nn

from edgekd.backends.onnx.export import to_onnx, write_onnx
from edgekd.quant.onnx_calibration import calibrate_onnx
from edgekd.values.target import Scheme


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "limit"), [(7, 64), (8, 127)])
def test_depthwise_weights_keep_to_the_targets_bits_as_all_others_do(bits, limit, tmp_path):
    from onnx import numpy_helper

    torch.manual_seed(0)
    depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8)
    module = nn.Sequential(nn.Conv2d(8, 8, 1), nn.ReLU(), depthwise).eval()
    x = torch.randn(8, 8, 8, 8)
    write_onnx(to_onnx(module, x[:1]), tmp_path / "float.onnx")
    scheme = Scheme(activations="uint8-affine", weight_bits=bits)
    model = calibrate_onnx(tmp_path / "float.onnx", x, scheme)
    weights = [numpy_helper.to_array(tensor) for tensor in model.graph.initializer]
    largest = [int(abs(w.astype(int)).max()) for w in weights if w.ndim == 4]
    # 64 * 255 + 64 * 255 is below 2^15: the sum of two products that saturates in vpmaddubsw.
    assert largest == [limit, limit]
