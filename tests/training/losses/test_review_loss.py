"""Knowledge review: its parts against an independent count, and what is fused into what."""

import pytest
import torch
from torch.nn import functional as F

from edgekd.training.losses.review import Review, hierarchical_context


def test_the_context_loss_weighs_the_levels_one_half_a_quarter_an_eighth():
    student, teacher = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    apart = student - teacher  # pooling is linear
    parts = [(apart**2).mean()]
    for cells in (4, 2, 1):
        size = 8 // cells
        pooled = apart.unflatten(3, (cells, size)).unflatten(2, (cells, size)).mean((3, 5))
        parts.append((pooled**2).mean())
    expected = sum(w * p for w, p in zip((1, 0.5, 0.25, 0.125), parts, strict=True)) / 1.875
    assert torch.allclose(hierarchical_context(student, teacher), expected)


def test_levels_that_are_not_smaller_than_the_map_are_left_out():
    student, teacher = torch.tensor([[[[1.0, 3.0], [1.0, 3.0]]]]), torch.zeros(1, 1, 2, 2)
    # mean of squares 5, square of the mean 4: (5 + 4 / 2) / 1.5
    assert hierarchical_context(student, teacher).item() == pytest.approx(7 / 1.5)


def test_deep_features_reach_the_shallow_comparison_but_not_the_other_way():
    torch.manual_seed(0)
    loss = Review(width=4)
    loss.prepare([(3, 4, 4), (6, 2, 2)], [(5, 4, 4), (7, 2, 2)])
    shallow, deep = torch.randn(2, 3, 4, 4), torch.randn(2, 6, 2, 2)
    sides = [shallow.requires_grad_(), deep.requires_grad_()]
    fused, below = loss.fusions[1](deep, None, torch.Size((2, 2)))
    F.mse_loss(fused, torch.zeros_like(fused)).backward()
    assert shallow.grad is None
    upper, _ = loss.fusions[0](shallow, below.detach().requires_grad_(), torch.Size((4, 4)))
    assert upper.shape == (2, 5, 4, 4)
    deep.grad = None
    loss(sides, [torch.randn(2, 5, 4, 4), torch.randn(2, 7, 2, 2)]).backward()
    assert deep.grad.abs().sum() > 0
    assert shallow.grad.abs().sum() > 0


def test_two_attention_maps_share_out_the_student_and_the_deeper_features():
    loss = Review(width=2)
    loss.prepare([(2, 2, 2), (2, 1, 1)], [(2, 2, 2), (2, 1, 1)])
    fusion = loss.fusions[0]
    fusion.inward = fusion.outward = torch.nn.Identity()
    torch.nn.init.zeros_(fusion.attention.weight)
    torch.nn.init.zeros_(fusion.attention.bias)
    own, below = torch.full((1, 2, 2, 2), 4.0), torch.full((1, 2, 1, 1), 10.0)
    mixed, _ = fusion(own, below, torch.Size((2, 2)))
    assert torch.allclose(mixed, torch.full((1, 2, 2, 2), 7.0))  # sigmoid(0) of each


def test_vectors_have_no_context():
    with pytest.raises(ValueError, match="needs maps"):
        Review().prepare([(4,), (4,)], [(4,), (4,)])


@pytest.mark.parametrize("size", [(14, 14), (7, 5), (5, 7), (4, 4), (3, 3)])
def test_the_context_loss_is_that_of_adaptive_averages_and_so_is_its_gradient(size):
    torch.manual_seed(1)
    student = torch.randn(2, 3, *size, requires_grad=True)
    teacher = torch.randn(2, 3, *size)
    expected, weight, weights = F.mse_loss(student, teacher), 1.0, 1.0
    for level in (each for each in (4, 2, 1) if each < size[0]):
        weight /= 2
        mine, theirs = (F.adaptive_avg_pool2d(side, level) for side in (student, teacher))
        expected = expected + weight * F.mse_loss(mine, theirs)
        weights += weight
    (wanted,) = torch.autograd.grad(expected / weights, student)
    value = hierarchical_context(student, teacher)
    assert value.item() == pytest.approx(expected.item() / weights, rel=1e-6)
    assert torch.allclose(torch.autograd.grad(value, student)[0], wanted, atol=1e-8)


def test_the_attention_is_a_convolution_of_both_with_the_deeper_features_enlarged():
    torch.manual_seed(2)
    loss = Review(width=3)
    loss.prepare([(2, 4, 4), (2, 2, 2)], [(2, 4, 4), (2, 2, 2)])
    fusion = loss.fusions[0].eval()
    own, below = torch.randn(2, 2, 4, 4), torch.randn(2, 3, 2, 2)
    _, mixed = fusion(own, below, torch.Size((4, 4)))
    inward, large = fusion.inward(own), F.interpolate(below, (4, 4), mode="nearest")
    shares = torch.sigmoid(fusion.attention(torch.cat([inward, large], dim=1)))
    assert torch.allclose(mixed, inward * shares[:, :1] + large * shares[:, 1:], atol=1e-6)
