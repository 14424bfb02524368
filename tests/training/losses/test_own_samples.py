"""Learning on one's own samples, against numbers worked out by hand."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgekd.training.losses.own_samples import OwnSamples

NONE = torch.zeros(1)


class Certain(nn.Module):
    """Every token is followed by that `step` further, of five."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step = step
        self.seen: list[Tensor] = []

    def forward(self, tokens: Tensor) -> Tensor:
        self.seen.append(tokens.clone())
        return 50.0 * F.one_hot((tokens.long() + self.step) % 5, 5).float()


class Constant(nn.Module):
    """The same logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.tensor(logits))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.logits.expand(*tokens.shape, -1)


def value(loss: OwnSamples, student: nn.Module, teacher: nn.Module, inputs: Tensor) -> Tensor:
    return loss(NONE, NONE, NONE, inputs=inputs, student_network=student, teacher_network=teacher)


def test_it_is_the_reverse_divergence_of_a_token_and_its_gradient_reaches_the_student_alone():
    student, teacher = Constant(0.0, math.log(3.0)), Constant(0.0, 0.0)
    found = value(OwnSamples(), student, teacher, torch.zeros(3, 6, dtype=torch.int64))
    expected = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)  # 0.1308
    assert found.item() == pytest.approx(expected, abs=1e-6)
    found.backward()
    # dKL/dz = p_s (ln(p_s / p_t) - KL)
    first, second = 0.25 * (math.log(0.5) - expected), 0.75 * (math.log(1.5) - expected)
    assert student.logits.grad.tolist() == pytest.approx([first, second], abs=1e-6)
    assert teacher.logits.grad is None


def test_the_student_writes_behind_the_prompt_and_the_teacher_judges_that():
    student, teacher = Certain(2), Certain(1)
    inputs = torch.tensor([[0, 2, 4, 4], [1, 3, 0, 0]])
    value(OwnSamples(prompt=2), student, teacher, inputs)
    assert teacher.seen[-1].tolist() == [[0, 2, 4, 1], [1, 3, 0, 2]]
    assert inputs.tolist() == [[0, 2, 4, 4], [1, 3, 0, 0]]


def test_with_every_token_mixed_in_the_teacher_writes():
    student, teacher = Certain(2), Certain(1)
    value(OwnSamples(mixed=1.0), student, teacher, torch.tensor([[3.0, 0.0, 0.0]]))
    assert student.seen[-1].tolist() == [[3.0, 4.0, 0.0]]


def test_a_low_temperature_draws_the_likeliest_token():
    student = Constant(0.0, 0.5, 0.0)
    teacher = Certain(1)
    teacher.forward = lambda tokens: (teacher.seen.append(tokens), torch.zeros(2, 5, 3))[1]
    value(OwnSamples(temperature=0.01), student, teacher, torch.zeros(2, 5, dtype=torch.int64))
    assert teacher.seen[-1][:, 1:].unique().tolist() == [1]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"prompt": 0}, "prompt must be at least 1 token, found 0"),
        ({"mixed": 1.5}, "mixed must be a chance from 0 to 1, found 1.5"),
    ],
)
def test_a_prompt_or_a_chance_that_is_none_is_refused(keys, message):
    with pytest.raises(ValueError, match=message):
        OwnSamples(**keys)


def test_outputs_that_are_no_text_are_refused():
    with pytest.raises(ValueError, match="a prompt of 4 leaves none of 4 tokens"):
        OwnSamples(prompt=4).prepare((4, 5), (4,), (4,))
    with pytest.raises(ValueError, match=r"needs logits \(length, classes\)"):
        OwnSamples().prepare((10,), (), (28, 28))
