"""Discriminators and critics: values by hand, and that each side trains its own part only."""

import math

import pytest
import torch
from torch import nn

from edgekd.training.losses.adversarial import Adversarial
from edgekd.training.losses.segmentation_holistic import SegmentationHolistic


def linear_judge(loss: Adversarial, weight: float) -> None:
    """D(v) = weight * v for vectors of one element."""
    judge = nn.Linear(1, 1, bias=False)
    judge.weight.data.fill_(weight)
    loss.judges = nn.ModuleList([judge])


def test_the_terms_and_the_penalty_are_the_hand_computed_ones():
    loss = Adversarial(penalty=4.0)
    loss.prepare([(1,)], [(1,)])
    linear_judge(loss, 3.0)
    student, teacher = torch.tensor([[0.5]], requires_grad=True), torch.tensor([[-1.0]])
    value = loss([student], [teacher])
    soft = lambda x: math.log1p(math.exp(x))  # noqa: E731
    # D(s) = 1.5, D(t) = -3, slope 3
    expected = soft(-1.5) + soft(1.5) + soft(3.0) + 4.0 / 2 * 9.0
    assert value.item() == pytest.approx(expected, rel=1e-6)
    value.backward()
    sigmoid = lambda x: 1 / (1 + math.exp(-x))  # noqa: E731
    assert student.grad.item() == pytest.approx(-sigmoid(-1.5) * 3.0, rel=1e-5)
    # The judge's: sigmoid(D(s)) s - sigmoid(-D(t)) t + penalty * weight, nothing of the first term.
    own = sigmoid(1.5) * 0.5 - sigmoid(3.0) * -1.0 + 4.0 * 3.0
    assert loss.judges[0].weight.grad.item() == pytest.approx(own, rel=1e-5)


def test_a_judge_that_can_not_tell_gives_three_times_log_two():
    loss = Adversarial()
    loss.prepare([(4, 2, 2), (3, 5)], [(4, 2, 2), (3, 5)])
    for judge in loss.judges:
        for parameter in judge.parameters():
            nn.init.zeros_(parameter)
    value = loss(
        [torch.randn(2, 4, 2, 2), torch.randn(2, 3, 5)],
        [torch.randn(2, 4, 2, 2), torch.randn(2, 3, 5)],
    )
    assert value.item() == pytest.approx(3 * math.log(2), rel=1e-6)


def test_widths_are_bridged_and_only_the_students_side_trains_the_bridge():
    loss = Adversarial(penalty=0.0)
    loss.prepare([(2, 3, 3)], [(5, 2, 2)])
    loss([torch.randn(2, 2, 3, 3)], [torch.randn(2, 5, 2, 2)]).backward()
    assert loss.bridges[0].weight.shape == (5, 2)
    assert loss.bridges[0].weight.grad.abs().sum() > 0


class Brightness(nn.Module):
    """A critic that sums the first class's map, by a learned factor."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * x[:, :1].flatten(1).sum(1, keepdim=True)


@pytest.mark.parametrize("penalty", [0.0, 10.0])
def test_the_holistic_critic_is_the_hand_computed_one(penalty):
    loss = SegmentationHolistic(penalty=penalty)
    loss.prepare((2, 1, 2), (1, 2), (1, 2, 4))
    loss.critic = Brightness()
    student = torch.zeros(1, 2, 1, 2, requires_grad=True)  # softmax 1/2, D = 2
    teacher = torch.tensor([[[[50.0, 50.0]], [[0.0, 0.0]]]])  # softmax 1, D = 4
    value = loss(student, teacher, torch.zeros(1), inputs=torch.zeros(1, 1, 2, 4))
    # -2 + 2 - 4, and the slope's norm sqrt(2 * 4) is off by sqrt(8) - 1.
    expected = -4.0 + penalty * (math.sqrt(8) - 1) ** 2
    assert value.item() == pytest.approx(expected, rel=1e-5)
    value.backward()
    # dD/dz = 2 p (1 - p) towards the first class, with the other sign in the loss.
    assert torch.allclose(student.grad[0, 0], torch.full((1, 2), -0.5))
    slope = 2 * penalty * (math.sqrt(8) - 1) * math.sqrt(2)
    assert loss.critic.factor.grad.item() == pytest.approx(1.0 - 2.0 + slope, rel=1e-4)
