"""Where each rule puts the ends of a grid, by numbers computed by hand or by trying them all."""

import math

import pytest
import torch

from edgekd.quant.ranges import Levels, RangeRule, range_of
from edgekd.quant.value_statistics import ValueStatistics

AFFINE, SYMMETRIC = Levels(255, False), Levels(255, True)


def statistics(values, batch=None):
    made = ValueStatistics(histogram=True)
    for part in values.split(batch or len(values)):
        made.add(part, len(part))
    return made


def ends(values, kind, levels=AFFINE, **keys):
    return range_of([statistics(values)], RangeRule(kind, **keys), levels)


def error(values, low, high):
    """The mean squared error of 256 levels between two ends."""
    step = (high - low) / 255
    zero = round(-low / step)
    codes = (values / step + zero).round().clamp(0, 255)
    return float(((codes - zero) * step - values).square().mean())


def test_extremes_of_all_samples_and_their_mean():
    x = torch.tensor([[1.0, -2.0], [3.0, -4.0], [8.0, 1.0]])
    assert ends(x, "minmax") == (-4.0, 8.0)
    assert ends(x, "mean-minmax") == (pytest.approx(-5 / 3), 4.0)


def test_a_moving_average_starts_as_the_mean_of_the_batches():
    x = torch.tensor([[1.0], [3.0], [8.0]])
    made = statistics(x, batch=1)
    assert range_of([made], RangeRule("moving-average"), AFFINE) == (0.0, 4.0)


def test_a_moving_average_follows_a_tenth_of_each_batch_later():
    x = torch.cat([torch.ones(10, 1), torch.full((1, 1), 11.0)])
    made = statistics(x, batch=1)
    assert range_of([made], RangeRule("moving-average"), AFFINE)[1] == pytest.approx(2.0)


def test_a_percentile_clips_half_of_the_rest_on_each_side():
    x = torch.linspace(-1.0, 1.0, 1001)
    low, high = ends(x, "percentile", percentile=90.0)
    assert low == pytest.approx(-0.9, abs=0.003)
    assert high == pytest.approx(0.9, abs=0.003)


def test_a_percentile_of_positive_values_clips_all_of_the_rest_above():
    x = torch.linspace(0.0, 1.0, 1001)
    low, high = ends(x, "percentile", percentile=90.0)
    assert (low, high) == (0.0, pytest.approx(0.9, abs=0.002))


def test_zeros_count_in_a_percentile():
    x = torch.cat([torch.zeros(900), torch.linspace(0.01, 1.0, 100)])
    assert ends(x, "percentile", percentile=95.0)[1] == pytest.approx(0.51, abs=0.01)


@pytest.mark.parametrize("kind", ["mse", "octav", "entropy", "percentile"])
def test_one_value_far_out_does_not_set_the_range(kind):
    torch.manual_seed(0)
    x = torch.cat([torch.randn(1_000_000), torch.tensor([12.0])])
    low, high = ends(x, kind)
    assert -6 < low < -2
    assert 2 < high < 8
    assert ends(x, "minmax")[1] == 12.0


@pytest.mark.parametrize("kind", ["mse", "octav"])
@pytest.mark.parametrize("relu", [False, True], ids=["both-signs", "relu"])
def test_the_squared_error_is_near_the_least_of_all_clippings(kind, relu):
    torch.manual_seed(0)
    x = torch.randn(50_000) ** 3
    x = x.relu() if relu else x
    low, high = ends(x, kind)
    shares = torch.linspace(0.02, 1.0, 200).tolist()
    extremes = float(min(x.min(), 0)), float(x.max())
    least = min(error(x, extremes[0] * share, extremes[1] * share) for share in shares)
    assert error(x, low, high) < 1.15 * least


def test_few_values_far_out_are_kept_where_clipping_them_costs_more_than_rounding():
    torch.manual_seed(0)
    x = torch.cat([torch.randn(10_000), torch.tensor([50.0])])
    for kind in ("mse", "octav"):
        assert ends(x, kind)[1] > 30.0


def test_octav_of_an_exponential_meets_its_fixed_point():
    x = -torch.linspace(0.5e-6, 1 - 0.5e-6, 1_000_000, dtype=torch.float64).log().float()
    s = ends(x, "octav")[1]
    # E[x; x > s] = (s + 1) exp(-s), P(x > s) = exp(-s), rounding by steps of s / 255.
    tail = math.exp(-s)
    assert s == pytest.approx((s + 1) * tail / ((1 - tail) / 255**2 / 12 + tail), rel=0.01)


def test_uniform_values_keep_their_whole_range():
    x = torch.linspace(0.0, 1.0, 20_000)
    for kind in ("mse", "octav"):
        assert ends(x, kind)[1] > 0.97


def test_a_symmetric_grid_gets_a_symmetric_range_or_less():
    low, high = ends(torch.linspace(-1.0, 2.0, 3000), "mse", SYMMETRIC)
    assert (low, high) == (-1.0, pytest.approx(2.0, rel=0.02))  # never beyond the extremes


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse", "octav", "entropy"])
def test_values_that_share_a_grid_share_the_range(kind):
    small, large = statistics(torch.linspace(0, 1, 500)), statistics(torch.linspace(-4, 0, 500))
    low, high = range_of([small, large], RangeRule(kind), AFFINE)
    assert low == pytest.approx(-4.0, abs=0.4)
    assert high == pytest.approx(1.0, abs=0.4)


@pytest.mark.parametrize("kind", ["minmax", "percentile", "mse", "octav", "entropy"])
def test_a_value_that_is_always_zero_has_an_empty_range(kind):
    assert ends(torch.zeros(16, 4), kind) == (0.0, 0.0)


def test_a_value_without_the_samples_dimension_counts_as_one_sample():
    made = ValueStatistics()
    made.add(torch.tensor([[1.0, 2.0, 3.0]]), samples=8)
    assert made.mean_of_samples() == (1.0, 3.0)


def test_values_that_are_not_finite_are_left_out():
    made = ValueStatistics(histogram=True)
    made.add(torch.tensor([float("-inf"), 1.0, float("nan"), -1.0]), samples=4)
    assert (made.low, made.high) == (-1.0, 1.0)
    assert float(made.histogram.counts.sum()) == 2
