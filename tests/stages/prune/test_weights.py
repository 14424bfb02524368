"""Masks, patterns, and scores that learn behind a mask."""

import pytest
import torch
from torch import nn

from edgekd.registry import CRITERIA
from edgekd.stages.prune.granularity import block_of, pattern_of
from edgekd.stages.prune.weights import (
    apply_masks,
    block_mask,
    block_scores,
    cubic_share,
    fits_pattern,
    masks_for,
    moving_masks,
    pattern_mask,
    sparsity,
)
from edgekd.values.tables import build


def test_two_of_four_are_the_best_two_along_the_input_channels() -> None:
    scores = torch.tensor([[1.0, 4.0, 3.0, 2.0, 9.0, 0.0, 0.0, 8.0]])
    assert pattern_mask(scores, 2, 4).int().tolist() == [[0, 1, 1, 0, 1, 0, 0, 1]]


def test_a_convolution_has_the_pattern_at_every_kernel_position() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8, 3, 3)
    mask = pattern_mask(weight.abs(), 2, 4)
    assert fits_pattern(weight * mask, 2, 4)
    assert not fits_pattern(weight, 2, 4)
    assert mask.view(6, 2, 4, 3, 3).sum(2).eq(2).all()


def test_what_four_does_not_divide_fits_no_pattern() -> None:
    assert not fits_pattern(torch.zeros(2, 3), 2, 4)
    assert pattern_of("2:4") == (2, 4)
    assert pattern_of("weights") is None
    assert (block_of("4x2"), block_of("2:4"), pattern_of("4x2")) == ((4, 2), None, None)


def test_a_block_is_worth_the_sum_of_its_weights_and_goes_as_a_whole() -> None:
    score = torch.tensor([[1.0, 2.0, 5.0, 6.0], [3.0, 4.0, 7.0, 8.0]])
    assert block_scores(score, 2, 2).tolist() == [[10.0, 26.0]]
    assert block_scores(score, 1, 2).tolist() == [[3.0, 11.0], [7.0, 15.0]]
    mask = block_mask(torch.tensor([[False, True]]), 2, 2)
    assert mask.int().tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]


def test_a_block_of_a_convolution_lies_at_one_kernel_position() -> None:
    score = torch.arange(16.0).view(2, 2, 2, 2)
    found = block_scores(score, 2, 2)
    assert found.tolist() == [[[[0 + 4 + 8 + 12, 28], [32, 36]]]]
    assert block_mask(found > 30, 2, 2).shape == (2, 2, 2, 2)


def test_masks_keep_the_best_and_zeros_are_zeros() -> None:
    layer = nn.Sequential(nn.Linear(4, 1, bias=False))
    layer[0].weight.data = torch.tensor([[-4.0, 1.0, 3.0, -2.0]])
    masks = masks_for({"0.weight": layer[0].weight.abs()}, {"0.weight": 2})
    apply_masks(layer, masks)
    assert layer[0].weight.tolist() == [[-4.0, 0.0, 3.0, 0.0]]
    assert sparsity(layer, masks) == 0.5


def test_the_cubic_share_starts_at_zero_and_ends_at_the_amount() -> None:
    assert cubic_share(0.8, 0.0) == 0.0
    assert cubic_share(0.8, 0.5) == pytest.approx(0.7)
    assert cubic_share(0.8, 2.0) == 0.8


def test_scores_learn_behind_the_mask_and_weights_do_not() -> None:
    layer = nn.Linear(2, 1, bias=False)
    layer.weight.data = torch.tensor([[2.0, 3.0]])
    movement = build(CRITERIA.get("movement"), {}, "")
    with moving_masks(layer, {"weight": None}, movement) as masks:
        masks["weight"].mask.copy_(torch.tensor([[True, False]]))
        layer.train()
        out = layer(torch.tensor([[1.0, 10.0]]))
        assert out.item() == 2.0  # the second weight is hidden
        out.sum().backward()
        original = layer.parametrizations["weight"].original
        assert original.grad.tolist() == [[1.0, 0.0]]
        assert masks["weight"].scores.tolist() == [[-2.0, -30.0]]  # -w * dL/dw', both
    assert type(layer) is nn.Linear
    assert layer.weight.tolist() == [[2.0, 0.0]]
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
