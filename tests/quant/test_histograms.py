"""Histograms whose bins double in width as larger values come."""

import torch

from edgekd.quant.histograms import SIDE, Histogram, merged


def of(*batches):
    histogram = Histogram()
    for batch in batches:
        histogram.add(torch.tensor(batch))
    return histogram


def test_each_value_is_counted_once_whatever_comes_later():
    first = of([0.25, -0.25, 0.5])
    assert float(first.counts.sum()) == 3
    wide = of([0.25, -0.25, 0.5], [100.0])
    assert float(wide.counts.sum()) == 4
    assert wide.width == first.width * 256
    near = (wide.centers.abs() < 1) & (wide.counts > 0)
    assert float(wide.counts[near].sum()) == 3


def test_bins_have_an_edge_at_zero_so_signs_stay_apart():
    histogram = of([1.0, -1.0], [1e-3, -1e-3], [300.0])
    assert float(histogram.counts[:SIDE].sum()) == 2
    assert float(histogram.counts[SIDE:].sum()) == 3


def test_zeros_are_counted_apart_and_set_no_width():
    histogram = of([0.0, 0.0])
    assert (histogram.zeros, histogram.width) == (2, 0.0)
    histogram.add(torch.tensor([0.0, 4.0]))
    assert (histogram.zeros, float(histogram.counts.sum())) == (3, 1)


def test_memory_does_not_grow_with_the_samples():
    histogram = of([1.0])
    for size in range(20):
        histogram.add(torch.full((100,), 2.0**size))
    assert histogram.counts.numel() == 2 * SIDE
    assert float(histogram.counts.sum()) == 2001


def test_more_values_than_float32_can_count_are_counted_exactly():
    histogram = Histogram()
    histogram.add(torch.ones(2**24 + 3))
    assert float(histogram.counts.sum()) == 2**24 + 3


def test_histograms_of_several_values_add_up_to_a_bins_width():
    narrow, wide = of([1.0, -1.0, 0.0]), of([-512.0])
    both = merged([narrow, wide])
    assert (float(both.counts.sum()), both.zeros, both.width) == (3, 1, wide.width)
    assert merged([narrow]) is narrow
