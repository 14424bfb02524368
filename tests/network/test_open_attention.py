import pytest
import torch
from torch import nn

from edgekd.network.open_attention import OpenAttention, with_open_attention
from edgekd.stages.prune.channels import channel_groups, remove_channels

torch.set_num_threads(1)
WIDTH, HEADS = 16, 4


def attention(**keys: object) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    module = nn.MultiheadAttention(WIDTH, HEADS, **keys).eval()  # type: ignore[arg-type]
    if module.out_proj.bias is not None:
        nn.init.normal_(module.out_proj.bias)
    return module


@pytest.mark.parametrize("keys", [{}, {"batch_first": True}, {"bias": False}])
def test_it_computes_what_pytorchs_own_does(keys):
    module = attention(**keys)
    opened = with_open_attention(module)
    assert isinstance(opened, OpenAttention)
    query, memory = torch.randn(5, 5, WIDTH), torch.randn(5, 5, WIDTH)
    for needed in ({"need_weights": False}, {}, {"average_attn_weights": False}):
        expected, weights = module(query, memory, memory, **needed)
        found, own = opened(query, memory, memory, **needed)
        torch.testing.assert_close(found, expected)
        assert (weights is None) == (own is None)
        if weights is not None:
            torch.testing.assert_close(own, weights)


def test_masks_hide_the_same_keys():
    module = attention(batch_first=True)
    opened = with_open_attention(module)
    x = torch.randn(2, 6, WIDTH)
    causal = nn.Transformer.generate_square_subsequent_mask(6)
    padding = torch.zeros(2, 6, dtype=torch.bool)
    padding[1, 4:] = True
    each_head = torch.zeros(2 * HEADS, 6, 6).masked_fill(torch.rand(2 * HEADS, 6, 6) > 0.8, -9.0)
    for masks in ({"attn_mask": causal}, {"key_padding_mask": padding}, {"attn_mask": each_head}):
        expected = module(x, x, x, **masks)[0]
        torch.testing.assert_close(opened(x, x, x, **masks)[0], expected)


def test_an_encoder_layer_takes_it_and_loses_heads():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, 32, batch_first=True)
    module = nn.Sequential(nn.Linear(3, WIDTH), encoder, nn.Linear(WIDTH, 2)).eval()
    x = torch.randn(2, 5, 3)
    opened = with_open_attention(module)
    torch.testing.assert_close(opened(x), module(x))
    assert isinstance(module[1].self_attn, nn.MultiheadAttention)
    groups = channel_groups(opened, x[:1], heads=True)
    (heads,) = [group for group in groups if group.heads]
    assert len(heads.units) == HEADS
    smaller = remove_channels(opened, x, {heads.name: heads.units[0]}, groups)
    assert smaller[1].self_attn.num_heads == HEADS - 1
    with torch.no_grad():
        opened[1].self_attn.output.weight[:, : WIDTH // HEADS] = 0.0
    torch.testing.assert_close(smaller(x), opened(x))


def test_attention_that_can_not_be_opened_stays():
    module = nn.MultiheadAttention(WIDTH, HEADS, kdim=8, vdim=8)
    assert with_open_attention(module) is module
    assert with_open_attention(nn.Linear(2, 2)) is not None


def test_opened_attention_is_exported_for_any_batch():
    from edgekd.quant.export import exported

    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True).eval()
    opened, x = with_open_attention(layer).eval(), torch.randn(3, 5, 16)
    assert opened is not layer
    program = exported(opened, x[:1])
    torch.testing.assert_close(program.module()(x), layer(x))
