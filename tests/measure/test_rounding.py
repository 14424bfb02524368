"""What rounding explains: steps of one, run through the graph."""

import numpy as np
import pytest
import torch
from test_divergence import quantized
from torch import fx, nn

from edgekd.measure.divergence import LayerDifference, _Forced, _twice_rounded
from edgekd.measure.rounding import Spread, is_rounding, spread_of
from edgekd.values.inner_tensor import InnerTensor
from edgekd.values.target import Scheme


@pytest.fixture(scope="module")
def graph() -> tuple[fx.GraphModule, torch.Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)
    )
    x = torch.randn(64, 8)
    return quantized(model.eval(), x, Scheme(activations="int8-affine")), x


def names(graph: fx.GraphModule) -> list[str]:
    return [n.name for n in graph.graph.nodes if "quantize_per_tensor" in str(n.target)]


def test_more_steps_move_the_outputs_further(graph):
    module, x = graph
    few = spread_of(module, dict.fromkeys(names(module), 0.01), x, 0)
    many = spread_of(module, dict.fromkeys(names(module), 0.9), x, 0)
    assert 0 < few.mean < many.mean
    assert few.largest <= many.largest
    assert few.values == 8 * 64 * 4


def test_the_same_steps_are_drawn_each_time(graph):
    module, x = graph
    shares = dict.fromkeys(names(module), 0.1)
    assert spread_of(module, shares, x, 0) == spread_of(module, shares, x, 0)


SPREAD = Spread(largest=0.3, mean=0.05, changed=0.1, values=1000)


def differing(by: float, share: float = 0.2, count: int = 250) -> tuple[np.ndarray, np.ndarray]:
    reference = np.tile(np.array([[3.0, 2.0, 1.0, 0.0]]), (count, 1))
    outputs = reference.copy()
    outputs.reshape(-1)[: int(share * outputs.size)] += by
    return reference, outputs


def test_differences_within_what_was_simulated_are_rounding():
    assert is_rounding(SPREAD, *differing(0.2))


def test_a_difference_beyond_it_is_none():
    assert not is_rounding(SPREAD, *differing(0.5, share=0.004))  # a 1.15th more is allowed at most


def test_on_a_fine_grid_one_step_more_is_rounding_too():
    spread = Spread(largest=7.0, mean=1.0, changed=0.0, values=1000)
    reference = np.zeros((100, 10))
    outputs = reference.copy()
    outputs[0, 0] = 8.0
    assert not is_rounding(spread, reference, outputs)
    assert is_rounding(spread, reference, outputs, step=1.0)


def test_a_difference_everywhere_is_none():
    assert not is_rounding(SPREAD, *differing(0.2, share=1.0))  # mean 0.2, where 0.1 is allowed


def test_the_largest_of_more_values_may_be_larger():
    # sqrt(ln 100,000 / ln 1000) = 1.29: up to 0.387 of 25,000 samples
    assert is_rounding(SPREAD, *differing(0.38, share=0.01, count=25_000))
    assert not is_rounding(SPREAD, *differing(0.38, share=0.01, count=250))


def test_as_many_decisions_may_change_as_did_there():
    reference, outputs = differing(0.0)
    close = reference.copy()
    close[:, 1] = 2.95
    outputs = close.copy()
    outputs[:20, 1] = 3.05  # 8 % of the samples, 10 % changed in the simulation
    assert is_rounding(SPREAD, close, outputs)
    outputs[:80, 1] = 3.05
    assert not is_rounding(SPREAD, close, outputs)


def test_a_kernel_that_always_rounds_down_is_biased_and_one_that_rounds_either_way_is_not():
    either = LayerDifference("q", "conv", lsb=1.0, share=0.3, bias=0.02, count=1000)
    down = LayerDifference("q", "conv", lsb=1.0, share=0.5, bias=-0.5, count=1000)
    few = LayerDifference("q", "head", lsb=1.0, share=0.5, bias=0.25, count=10)
    assert [each.is_biased for each in (either, down, few)] == [False, True, False]


def test_values_between_two_steps_may_all_be_rounded_to_one_side():
    """Of averages of two, a half lies there; half up and half to even differ in half of those."""
    ties = LayerDifference("q", "pool", lsb=1.0, share=0.25, bias=0.25, count=1000, ties=0.25)
    none = LayerDifference("q", "pool", lsb=1.0, share=0.25, bias=0.25, count=1000)
    assert [each.is_biased for each in (ties, none)] == [False, True]


@pytest.mark.parametrize(
    ("ratio", "near"),
    [
        (1.9, 0.25),  # 1.9 / 4 = 0.475 = 0.95 / 2: twice a value is rounded, then half of that
        (2.1, 0.0),  # 0.525: rounded once
        (0.9, 0.125),  # 0.225 = 0.9 / 4
    ],
)
def test_a_mean_in_tflite_is_rounded_twice_where_its_factor_is_below_a_half(
    ratio: float, near: float
) -> None:
    graph = fx.Graph()
    quantized = torch.ops.quantized_decomposed
    x = graph.placeholder("x")
    whole = graph.call_function(
        quantized.dequantize_per_tensor.default, (x, 0.1 * ratio, 0, -128, 127, torch.int8)
    )
    mean = graph.call_function(torch.ops.aten.mean.dim, (whole, [2, 3]))
    last = graph.call_function(
        quantized.quantize_per_tensor.default, (mean, 0.1, 0, -128, 127, torch.int8)
    )
    assert _twice_rounded(last, 4) == near


@pytest.mark.parametrize("shown", [False, True], ids=["the change of grid is hidden", "shown"])
def test_what_a_concatenation_joins_was_rounded_before(shown: bool) -> None:
    """The first half is put from a grid of 1/8 onto one of 1/4, where every odd step is a tie."""
    q = torch.ops.quantized_decomposed
    grid = (0.25, 0, -128, 127, torch.int8)
    graph = fx.Graph()
    x, other = graph.placeholder("x"), graph.placeholder("other")
    fine = graph.call_function(q.quantize_per_tensor.default, (x, 0.125, 0, -128, 127, torch.int8))
    read = graph.call_function(
        q.dequantize_per_tensor.default, (fine, 0.125, 0, -128, 127, torch.int8)
    )
    moved, known = (
        graph.call_function(
            q.dequantize_per_tensor.default,
            (graph.call_function(q.quantize_per_tensor.default, (value, *grid)), *grid),
        )
        for value in (read, other)
    )
    joined = graph.call_function(torch.ops.aten.cat.default, ([moved, known], 1))
    last = graph.call_function(q.quantize_per_tensor.default, (joined, *grid))
    graph.output(last)
    module = fx.GraphModule(nn.Module(), graph)
    odd = 0.125 * torch.tensor([[1.0, 3.0, 5.0, 7.0, 9.0, 11.0, 13.0, 15.0]])
    even = torch.zeros(1, 8)
    reference = torch.cat([(odd / 0.25).round() / 4, even], 1)
    up = torch.cat([(odd / 0.25 + 1e-6).round() / 4, even], 1).numpy()
    seen = {last: [InnerTensor("joined", up, 0.25)]}
    if shown:
        seen[moved.args[0]] = [InnerTensor("moved", up[:, :8], 0.25)]
    run = _Forced(module, seen)
    run.run(odd, even)
    found = run.differences[-1]
    if shown:  # the part is compared by itself, and the concatenation adds nothing to it
        assert (run.differences[0].ties, found.lsb) == (0.5, 0.0)
        return
    assert found.share == found.bias == found.ties == 0.25
    assert not found.is_biased
    assert float(abs(torch.from_numpy(up) - reference).max()) == 0.25


def test_where_no_value_differs_in_a_few_some_may_in_others():
    assert LayerDifference("q", "conv", 0.0, 0.0, 0.0, count=12).likely_share == 0.25
    assert LayerDifference("q", "conv", 1.0, 0.3, 0.0, count=1000).likely_share == 0.3
    assert LayerDifference("q", "conv", 0.0, 0.0, 0.0, count=1).likely_share == 1.0
