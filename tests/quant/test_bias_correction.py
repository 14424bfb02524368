"""Biases make up for the mean error of the layers before, as far as the samples show it."""

import torch

from edgekd.quant.bias_correction import significant_mean


def test_a_mean_is_shrunk_by_what_its_standard_error_explains() -> None:
    # Channel 0: mean 2, variance 2 of 2 samples, so s^2 = 1: 2 (1 - 1/4). Channel 1: mean 1,
    # variance 8, so s^2 = 4 > 1: nothing is left. Channel 2: without spread, all of it.
    errors = torch.tensor([[1.0, -1.0, 3.0], [3.0, 3.0, 3.0]], dtype=torch.float64)
    assert significant_mean(errors).tolist() == [1.5, 0.0, 3.0]


def test_one_sample_has_no_spread_and_counts_whole() -> None:
    assert significant_mean(torch.tensor([[2.0, -1.0]])).tolist() == [2.0, -1.0]
