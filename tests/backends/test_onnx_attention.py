"""Fused attention in ONNX files."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.backends.onnx.attention import with_settled_attention
from edgekd.backends.onnx.export import to_onnx
from edgekd.network.calling import take_one_argument
from edgekd.quant.export import export_graph

pytestmark = pytest.mark.backend("onnx")


class Biased(nn.Module):
    """Attention with a learned bias for each pair of positions, as in T5."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.bias = nn.Linear(16, 48), nn.Parameter(torch.randn(1, 4, 6, 6))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        bias = self.bias + (1.0 - mask[:, None, None, :]) * -1e4
        q, k, v = self.qkv(x).view(-1, 6, 3, 4, 4).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return out.transpose(1, 2).reshape(x.shape[0], 6, -1)


def test_attention_with_a_bias_is_exported_for_any_batch():
    import onnxruntime

    torch.manual_seed(0)
    module = Biased().eval()
    take_one_argument(module)
    x = {
        "x": torch.randn(3, 6, 16),
        "mask": torch.tensor([[1.0] * 6, [1.0] * 4 + [0.0] * 2] * 2)[:3],
    }
    example = {name: leaf[:1] for name, leaf in x.items()}
    content = to_onnx(export_graph(module, example), example).SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {name: leaf.numpy() for name, leaf in x.items()})
    np.testing.assert_allclose(found, module(x).detach().numpy(), atol=1e-5)


def test_a_module_without_fused_attention_is_left_as_it_is():
    module = nn.Linear(2, 2)
    assert with_settled_attention(module) is module
