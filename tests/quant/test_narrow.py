"""Weights in few bits: codes and scales worked out by hand, and the gradients behind them."""

import pytest
import torch
from torch import Tensor, fx, nn

from edgekd.models.transformer import transformer
from edgekd.quant.export import export_graph
from edgekd.quant.narrow import NarrowWeight, binary, group_size, grouped, rounded, ternary
from edgekd.quant.storage import load_graph, save_graph
from edgekd.quant.weight_only import (
    Stored,
    as_bfloat16,
    as_float,
    finish_narrow,
    narrow_weights,
    narrowed,
    stored_bytes,
    stored_weights,
    weighted_layers,
)

GROUPS = torch.tensor([[[0.1, -0.5, 0.9, -0.1], [2.0, 0.0, -2.0, 0.0]]])


def test_ternary_weights_are_those_above_seven_tenths_of_the_mean() -> None:
    codes, scales = ternary(GROUPS)
    # mean|w| 0.4, D = 0.28: 0.5 and 0.9 stay, at their mean 0.7; mean 1, D = 0.7: both twos stay
    assert codes.tolist() == [[[0, -1, 1, 0], [1, 0, -1, 0]]]
    assert scales.flatten().tolist() == pytest.approx([0.7, 2.0])


def test_binary_weights_are_the_signs_times_the_mean() -> None:
    codes, scales = binary(GROUPS)
    assert codes.tolist() == [[[1, -1, 1, -1], [1, 1, -1, 1]]]
    assert scales.flatten().tolist() == pytest.approx([0.4, 1.0])


def test_int4_weights_reach_from_minus_7_to_7() -> None:
    codes, scales = rounded(torch.tensor([[[0.7, -0.34, 0.0]]]), 7)
    assert (codes.tolist(), scales.item()) == ([[[7, -3, 0]]], pytest.approx(0.1))


def test_a_scale_that_is_searched_for_has_no_larger_error() -> None:
    torch.manual_seed(0)
    groups = torch.randn(4, 3, 32)

    def error(search: bool) -> Tensor:
        codes, scales = rounded(groups, 7, search)
        return (codes * scales - groups).square().sum(2)

    assert bool((error(True) <= error(False) + 1e-9).all())
    assert float(error(True).sum()) < 0.97 * float(error(False).sum())


@pytest.mark.parametrize("coded", [ternary, binary, lambda groups: rounded(groups, 7, True)])
def test_a_group_of_zeros_gives_zeros(coded) -> None:
    codes, scales = coded(torch.zeros(1, 1, 4))
    assert (codes * scales).abs().max() == 0
    assert scales.isfinite().all()


def test_a_group_is_the_largest_divisor_that_is_wanted() -> None:
    assert [group_size(144, 32), group_size(64, 32), group_size(9, 32)] == [24, 32, 9]
    assert [group_size(144, 0), group_size(13, 8)] == [144, 1]


@pytest.mark.parametrize(
    ("dtype", "passes"),
    [("int4", [1, 1, 1, 1]), ("int8", [1, 1, 1, 1]), ("ternary", [1, 1, 1, 0]),
     ("binary", [1, 1, 1, 0])],
)  # fmt: skip
def test_gradients_go_straight_through_up_to_one(dtype, passes) -> None:
    weight = torch.tensor([[0.1, -0.5, 1.0, -1.5]], requires_grad=True)
    narrow = NarrowWeight(weight, dtype, 0)
    (narrow(weight) * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert weight.grad.tolist() == [[p * g for p, g in zip(passes, [1, 2, 3, 4], strict=True)]]


def test_what_is_switched_off_changes_nothing() -> None:
    weight = torch.randn(2, 4)
    narrow = NarrowWeight(weight, "binary", 0)
    narrow.enabled = False
    assert torch.equal(narrow(weight), weight)


def network() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return transformer(8, width=32, patch=2, depth=1, heads=2).eval(), torch.rand(4, 1, 8, 8)


@pytest.mark.parametrize(
    ("dtype", "bits", "learned"),
    [("int4", 4, False), ("int4", 4, True), ("int8", 8, False), ("ternary", 2, False),
     ("binary", 2, False)],
)  # fmt: skip
def test_a_finished_graph_computes_what_was_trained_and_counts_its_bits(
    dtype, bits, learned, tmp_path
) -> None:
    module, x = network()
    whole = export_graph(module, x[:1])
    layers = weighted_layers(whole)
    prepared = narrowed(whole, dict.fromkeys(layers, dtype), 16, learned=learned)
    assert list(narrow_weights(prepared)) == list(layers)
    graph = finish_narrow(prepared)
    with torch.no_grad():
        assert torch.equal(graph(x), prepared(x))
        assert not torch.equal(graph(x), whole(x))
    found = [each for _, each in stored_weights(graph)]
    assert {each.dtype for each in found} == {dtype}
    weights = sum(each.value.numel() for each in found)
    scales = sum(each.scales.numel() for each in found if each.scales is not None)
    rest = sum(p.numel() for p in module.parameters()) - weights
    assert stored_bytes(graph) == weights * bits // 8 + 4 * scales + 4 * rest
    save_graph(graph, tmp_path / "graph.pt2")
    restored = load_graph(tmp_path / "graph.pt2")
    assert torch.equal(restored(x), graph(x))
    assert stored_bytes(restored) == stored_bytes(graph)
    floating, stored = as_float(restored)
    assert torch.equal(floating(x), graph(x))
    assert [each.dtype for each in stored] == [dtype] * len(layers)


def test_bfloat16_weights_are_rounded_and_half_as_large(tmp_path) -> None:
    module, x = network()
    whole = export_graph(module, x[:1])
    graph = as_bfloat16(whole)
    (node, first), *_ = stored_weights(graph)
    assert isinstance(node, fx.Node)
    assert (first.dtype, first.bits) == ("bf16", 16 * first.value.numel())
    assert torch.equal(first.value, module.embed.weight.detach().bfloat16().float())
    save_graph(graph, tmp_path / "graph.pt2")
    assert torch.equal(load_graph(tmp_path / "graph.pt2")(x), graph(x))
    weights = sum(each.value.numel() for _, each in stored_weights(graph))
    every = sum(p.numel() for p in module.parameters())
    assert stored_bytes(graph) == 2 * weights + 4 * (every - weights)


def test_codes_without_a_zero_are_binary_ones() -> None:
    codes, scales = torch.tensor([[1, -1]], dtype=torch.int8), torch.ones(1, 1)
    assert Stored(codes.float(), codes, scales, 1).dtype == "binary"
    codes = torch.tensor([[1, 0]], dtype=torch.int8)
    assert Stored(codes.float(), codes, scales, 1).dtype == "ternary"
    assert Stored(codes.float(), codes, scales, 1).bits == 2 * 2 + 32


def test_grouped_weights_lie_next_to_each_other_in_a_channel() -> None:
    weight = torch.arange(8.0).view(2, 2, 2)
    assert grouped(weight, 2).tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]


def test_a_weight_just_above_seven_tenths_of_the_mean_is_no_ternary_zero() -> None:
    # mean|w| = 1: 0.72 and 1.28 are kept, 0.68 is not.
    codes, scale = ternary(torch.tensor([[[0.72, -1.28], [0.68, -1.32]]]))
    assert codes.tolist() == [[[1.0, -1.0], [0.0, -1.0]]]
    assert scale.flatten().tolist() == pytest.approx([1.0, 1.32])


class Conv1D(nn.Module):
    """A linear layer with its weight as (in, out), as transformers' GPT-2 has it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.nf, self.nx = outputs, inputs
        self.weight = nn.Parameter(torch.randn(inputs, outputs) / inputs**0.5)
        self.bias = nn.Parameter(torch.randn(outputs))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.view(-1, self.nx), self.weight)
        return flat.view(*x.shape[:-1], self.nf)


def test_linear_layers_by_columns_are_packed_like_others():
    torch.manual_seed(0)
    module = nn.Sequential(Conv1D(16, 48), nn.ReLU(), Conv1D(48, 16), nn.Linear(16, 8)).eval()
    x = torch.randn(32, 5, 16)
    graph = export_graph(module, x[:1])
    layers = weighted_layers(graph)
    assert list(layers) == ["0", "2", "3"]
    finished = finish_narrow(narrowed(graph, dict.fromkeys(layers, "int4"), 0))
    assert len(stored_weights(finished)) == 3
    with torch.no_grad():
        noise = (finished(x) - module(x)).square().sum() / module(x).square().sum()
        assert 1e-4 < float(noise) < 0.03  # between 15 and 40 decibels
