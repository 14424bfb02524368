"""Factors against the layers that they replace: exact at full rank, Eckart-Young below it."""

import itertools

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.network.cost import totals
from edgekd.stages.factorize.convolution import (
    full_ranks,
    input_basis,
    matrix_of,
    split_convolution,
)
from edgekd.stages.factorize.covariance import input_moments
from edgekd.stages.factorize.linear import basis, split_linear
from edgekd.stages.factorize.ranks import (
    Method,
    Option,
    cheapest_within,
    energy_rank,
    hull,
    rounded_up,
    tail,
)
from edgekd.stages.factorize.sensitivity import least_option
from edgekd.stages.factorize.sites import at_ranks, find_sites, replaced, spectrum_of

torch.set_num_threads(1)

METHODS: tuple[Method, ...] = ("spatial-svd", "channel-svd", "tucker2")
SHAPES = (
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": (3, 5), "stride": (2, 1), "padding": (0, 2), "dilation": (2, 1)},
    {"kernel_size": 3, "padding": "same", "bias": False},
    {"kernel_size": (1, 3), "padding": (0, 1), "padding_mode": "circular"},
)


def test_a_two_by_two_is_cut_as_by_hand() -> None:
    # W = 5 u1 v1^T + 1 u2 v2^T with u1 = v1 = (1, 1) / sqrt 2: [[3, 2], [2, 3]].
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[3.0, 2.0], [2.0, 3.0]])
    left, values = basis(layer.weight.detach())
    assert values.tolist() == pytest.approx([5.0, 1.0])
    factors = split_linear(layer, left, 1)
    product = factors[1].weight @ factors[0].weight
    assert torch.allclose(product, torch.full((2, 2), 2.5), atol=1e-6)
    assert tail(values, 1) == pytest.approx(1 / 26)


def test_the_weight_is_chosen_by_what_the_inputs_use() -> None:
    # The second input is never there, so that rank 1 is exact for what is.
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.tensor([[1.0, 9.0], [2.0, -4.0]])
    left, values = basis(layer.weight.detach(), torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    assert values.tolist() == pytest.approx([2 * 5**0.5, 0.0], abs=1e-6)
    x = torch.tensor([[3.0, 0.0]])
    assert torch.allclose(split_linear(layer, left, 1)(x), layer(x), atol=1e-5)


def test_the_error_of_a_linear_layer_is_the_tail_of_its_singular_values() -> None:
    torch.manual_seed(0)
    layer = nn.Linear(20, 12)
    left, values = basis(layer.weight.detach())
    for rank in (3, 7, 12):
        factors = split_linear(layer, left, rank)
        error = (factors[1].weight @ factors[0].weight - layer.weight).square().sum()
        assert float(error) == pytest.approx(float(values[rank:].square().sum()), abs=1e-5)
    x = torch.randn(4, 20)
    assert torch.allclose(factors(x), layer(x), atol=1e-5)


@pytest.mark.parametrize(("method", "shape"), list(itertools.product(METHODS, SHAPES)))
@pytest.mark.parametrize("weighted", [False, True])
def test_full_rank_reproduces_a_convolution(method: Method, shape: dict, weighted: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 5, **shape)
    x = torch.randn(8, 3, 9, 10)
    moments = input_moments(layer, {"": layer}, x)[""] if weighted else None
    moment = None
    if moments is not None:
        moment = moments.columns if method == "spatial-svd" else moments.patches
    left, _ = basis(matrix_of(layer, method), moment)
    right = input_basis(layer, moments.channels if moments else None)[0]
    factors = split_convolution(layer, method, left, full_ranks(layer, method), right)
    assert torch.allclose(factors(x), layer(x), atol=1e-5)


@pytest.mark.parametrize("method", ["spatial-svd", "channel-svd"])
def test_the_error_of_a_kernel_is_the_tail_of_its_singular_values(method: Method) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 6, 3, bias=False)
    left, values = basis(matrix_of(layer, method))
    factors = split_convolution(layer, method, left, (3,), None)
    if method == "channel-svd":
        kernel = torch.einsum("or,rihw->oihw", factors[1].weight[:, :, 0, 0], factors[0].weight)
    else:
        kernel = torch.einsum(
            "orw,rih->oihw", factors[1].weight[:, :, 0], factors[0].weight[:, :, :, 0]
        )
    error = float((kernel - layer.weight).square().sum())
    assert error == pytest.approx(float(values[3:].square().sum()), rel=1e-4)


def test_patches_have_the_second_moment_that_sums_give() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 5, 3, stride=2, padding=1, bias=False)
    x = torch.randn(6, 2, 7, 7)
    moments = input_moments(layer, {"": layer}, x)[""]
    outputs = layer(x).detach().movedim(1, -1).flatten(0, 2).double()
    kernel = matrix_of(layer, "channel-svd")
    expected = outputs.T @ outputs / len(outputs)
    assert torch.allclose(kernel @ moments.patches @ kernel.T, expected, atol=1e-6)


@pytest.mark.parametrize("method", ["svd", *METHODS])
def test_weighting_lowers_the_error_of_the_outputs(method: Method) -> None:
    torch.manual_seed(0)
    mixing = torch.randn(8, 2) @ torch.randn(2, 8) + 0.1 * torch.randn(8, 8)
    layer: nn.Module
    if method == "svd":
        layer, x = nn.Linear(8, 8), torch.randn(256, 8) @ mixing.T
    else:
        layer = nn.Conv2d(8, 8, 3, padding=1)
        x = torch.einsum("ij,bjhw->bihw", mixing, torch.randn(16, 8, 6, 6))
    module = nn.Sequential(layer).eval()
    sites, _ = find_sites(module, x[:1], "svd", "auto", lambda name: False)
    errors = []
    for moments in ({}, input_moments(module, {"0": layer}, x)):
        spectrum = spectrum_of(sites[0], method, moments.get("0"))
        option = at_ranks(sites[0], method, spectrum, [3] * len(spectrum.values), 1)
        smaller = replaced(module, sites, {"0": option}, {("0", method): spectrum})
        errors.append(float((smaller(x) - module(x)).square().mean()))
    assert errors[1] < 0.9 * errors[0]


@pytest.mark.parametrize("method", ["svd", *METHODS])
def test_the_cost_that_is_promised_is_the_cost_that_is_counted(method: Method) -> None:
    layers: dict[str, nn.Module] = {"svd": nn.Linear(10, 7)}
    layer = layers.get(method, nn.Conv2d(6, 7, 3, stride=2, padding=1))
    module = nn.Sequential(layer).eval()
    x = torch.randn(1, 6, 9, 10)
    sites, _ = find_sites(module, x, "svd", "auto", lambda name: False)
    assert sites[0].macs == totals(module, x).macs
    spectrum = spectrum_of(sites[0], method, None)
    option = at_ranks(sites[0], method, spectrum, [2] * len(spectrum.values), 1)
    smaller = replaced(module, sites, {"0": option}, {("0", method): spectrum})
    assert totals(smaller, x).macs == option.macs


def test_grouped_convolutions_are_left_out_by_name() -> None:
    module = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 4, 3, groups=2))
    sites, left = find_sites(module, torch.zeros(1, 4, 8, 8), "svd", "auto", lambda name: False)
    assert sites == []
    assert left == {"0": "depthwise", "1": "2 groups"}


def test_energy_takes_the_smallest_rank_that_holds_it() -> None:
    values = torch.tensor([3.0, 2.0, 1.0])  # squares 9, 4, 1 of 14
    assert [energy_rank(values, energy) for energy in (0.6, 0.65, 0.93, 0.99)] == [1, 2, 3, 3]
    assert energy_rank(values, 13 / 14) == 2


def test_ranks_are_rounded_up_but_not_above_the_full_one() -> None:
    assert [rounded_up(rank, 8, 20) for rank in (1, 8, 9, 17)] == [8, 8, 16, 20]


def option(macs: int, error: float) -> Option:
    return Option("svd", (1,), macs, error)


def test_a_budget_takes_the_step_that_loses_least_per_mac() -> None:
    options = {"a": [option(50, 0.1), option(20, 0.2)], "b": [option(50, 0.05), option(10, 0.9)]}
    whole = {"a": 100, "b": 100}
    assert cheapest_within(whole, options, 150) == {"b": option(50, 0.05)}
    assert cheapest_within(whole, options, 100) == {"a": option(50, 0.1), "b": option(50, 0.05)}
    assert cheapest_within(whole, options, 75) == {"a": option(20, 0.2), "b": option(50, 0.05)}
    with pytest.raises(InputError, match="out of reach"):
        cheapest_within(whole, options, 20)


def test_an_option_above_the_line_between_two_others_is_no_choice() -> None:
    points = hull(100, [option(80, 0.5), option(50, 0.1), option(10, 0.6), option(120, 0.0)])
    assert [point[0] for point in points] == [100, 50, 10]


def test_the_cheapest_option_that_loses_little_enough_is_found_by_bisection() -> None:
    options = [Option("svd", (rank,), 10 * rank, 0.0) for rank in range(1, 9)]
    asked = []

    def lost(option: Option) -> float:
        asked.append(option.ranks[0])
        return 0.3 - 0.05 * option.ranks[0]

    found = least_option(options, lost, 0.1)
    assert found is not None
    assert found.ranks == (4,)
    assert len(asked) <= 4
    assert least_option(options, lambda option: 1.0, 0.1) is None
    assert least_option([], lost, 0.1) is None
    assert least_option(options, lambda option: 0.0, 0.0) == options[0]
