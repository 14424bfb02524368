"""LSQ and PACT on each branch, against numbers worked out by hand from the papers' equations."""

import math

import pytest
import torch

from edgekd.quant.clipping import clipped, rounded_between
from edgekd.quant.learned_step import Step, first_step, learned_step


def test_a_step_learns_by_equation_3_and_its_scale() -> None:
    value = torch.tensor([0.3, -0.7, 5.0, -5.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    # v / s = 0.6, -1.4, 10, -10 on codes from -4 to 3
    rounded = learned_step(value, step, -4, 3)
    assert rounded.tolist() == [0.5, -0.5, 1.5, -2.0]
    (rounded * torch.tensor([1.0, 10.0, 100.0, 1000.0])).sum().backward()
    # Inside, the gradient passes; outside it stops (eq. 5).
    assert value.grad.tolist() == [1.0, 10.0, 0.0, 0.0]
    # eq. 3: 1 - 0.6 = 0.4, -1 + 1.4 = 0.4, high = 3, low = -4; times 1 / sqrt(N high), N = 4
    expected = (0.4 * 1 + 0.4 * 10 + 3 * 100 - 4 * 1000) / math.sqrt(4 * 3)
    assert step.grad.item() == pytest.approx(expected, rel=1e-5)


def test_at_the_very_end_of_the_grid_a_value_counts_as_outside() -> None:
    value = torch.tensor([1.5, -2.0], requires_grad=True)
    step = torch.tensor(0.5, requires_grad=True)
    learned_step(value, step, -4, 3).sum().backward()
    assert value.grad.tolist() == [0.0, 0.0]
    assert step.grad.item() == pytest.approx((3 - 4) / math.sqrt(2 * 3))


def test_each_channel_has_its_own_step_and_count() -> None:
    value = torch.tensor([[0.3, 9.0], [0.2, 0.2]], requires_grad=True)
    step = torch.tensor([[0.5], [1.0]], requires_grad=True)
    learned_step(value, step, -7, 7).sum().backward()
    scale = 1 / math.sqrt(2 * 7)
    assert step.grad.flatten().tolist() == pytest.approx([(0.4 + 7) * scale, (-0.2 * 2) * scale])


def test_activations_count_the_features_of_one_sample() -> None:
    value = torch.full((8, 4), 9.0)
    step = torch.tensor(1.0, requires_grad=True)
    learned_step(value, step, 0, 4, shared=4).sum().backward()
    assert step.grad.item() == pytest.approx(32 * 4 / math.sqrt(4 * 4))


def test_a_grid_below_zero_alone_is_scaled_by_its_lower_end() -> None:
    step = torch.tensor(1.0, requires_grad=True)
    learned_step(torch.tensor([-9.0]), step, -4, 0).sum().backward()
    assert step.grad.item() == pytest.approx(-4 / 2)


def test_the_first_step_is_twice_the_mean_over_the_root_of_the_end() -> None:
    assert first_step(torch.tensor([[1.0, -3.0]]), 4, (1,)).item() == 2.0


def test_a_step_is_a_multiple_of_its_start_and_never_zero() -> None:
    step = Step(torch.tensor([[0.5], [2.0]]))
    assert step().tolist() == [[0.5], [2.0]]
    assert step.ratio.dim() == 1  # which weight decay leaves alone
    with torch.no_grad():
        step.ratio.copy_(torch.tensor([-1.0, 3.0]))
    assert step().flatten().tolist() == pytest.approx([0.0005, 6.0])


def test_clipping_passes_gradients_inside_and_learns_its_ends_outside() -> None:
    value = torch.tensor([-3.0, -1.0, 0.5, 2.0, 4.0], requires_grad=True)
    low, high = torch.tensor(-1.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    found = clipped(value, low, high)
    assert found.tolist() == [-1.0, -1.0, 0.5, 2.0, 2.0]
    (found * torch.tensor([1.0, 2.0, 4.0, 8.0, 16.0])).sum().backward()
    assert value.grad.tolist() == [0.0, 0.0, 4.0, 0.0, 0.0]
    assert (low.grad.item(), high.grad.item()) == (1 + 2, 8 + 16)


def test_rounding_between_ends_keeps_zero_and_goes_straight_through() -> None:
    value = torch.tensor([0.0, 0.26, 0.6, 1.0], requires_grad=True)
    low, high = torch.tensor(0.0, requires_grad=True), torch.tensor(1.0, requires_grad=True)
    found = rounded_between(value, low, high, 4)
    assert found.tolist() == [0.0, 0.25, 0.5, 1.0]
    found.sum().backward()
    assert value.grad.tolist() == [1.0, 1.0, 1.0, 1.0]
    assert low.grad is None
    both = rounded_between(torch.tensor([-0.3, 0.0, 0.7]), torch.tensor(-0.3), torch.tensor(0.7), 5)
    assert both.tolist() == pytest.approx([-0.4, 0.0, 0.6], abs=1e-6)  # -1.5 steps round to -2
