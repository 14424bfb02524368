"""Schedules of weights and temperatures against their formulas."""

import math

import pytest
import torch
from torch import nn

from edgekd.errors import InputError
from edgekd.registry import SCHEDULES
from edgekd.training.distillation_loss import Compared, _Seen, train_step_of
from edgekd.training.loop import Batch
from edgekd.training.losses.kl import KL
from edgekd.training.schedules import TrainStep, schedule_for_parameter, schedule_for_weight
from edgekd.training.schedules.balanced import Balanced
from edgekd.training.schedules.batch_size import BatchSize
from edgekd.training.schedules.constant import Constant
from edgekd.training.schedules.cosine import Cosine
from edgekd.training.schedules.inverse_sqrt import InverseSqrt
from edgekd.training.schedules.learned import Learned
from edgekd.training.schedules.linear import Linear
from edgekd.training.schedules.spread import Spread

AT = [TrainStep(step, 5, 11) for step in range(11)]


def test_a_constant_stays():
    assert [Constant(3.0)(at) for at in AT] == [3.0] * 11


def test_a_line_goes_from_the_first_step_to_the_last():
    found = [Linear(8.0, 2.0)(at) for at in AT]
    assert (found[0], found[5], found[10]) == (8.0, 5.0, 2.0)
    assert Linear(8.0, 2.0)(TrainStep(0, 1, 1)) == 8.0  # a training of one step


def test_a_cosine_is_half_way_in_the_middle_and_slow_at_both_ends():
    found = [Cosine(8.0, 2.0)(at) for at in AT]
    assert found[0] == pytest.approx(8.0)
    assert found[5] == pytest.approx(5.0)
    assert found[10] == pytest.approx(2.0)
    assert found[1] == pytest.approx(2.0 + 6.0 * (1 + math.cos(math.pi / 10)) / 2)


def test_the_inverse_square_root_goes_by_the_epoch():
    found = [InverseSqrt(6.0, least=4.0)(at) for at in AT]
    assert found[:5] == [6.0] * 5
    assert found[5:10] == [pytest.approx(6.0 / math.sqrt(2))] * 5
    assert found[10] == 4.0  # 6 / sqrt(3) = 3.46 is below the least


def test_the_batch_that_a_schedule_sees_is_that_of_all_processes():
    x = torch.zeros(4, 3)
    batch = Batch(x, torch.zeros(4), torch.arange(4), None, processes=2)
    compared = Compared(x, [], batch.y)
    seen = _Seen(batch, x, compared, compared, None, {}, nn.Identity())
    assert seen.train_step.batch_size == train_step_of(batch, len(x)).batch_size == 8


def test_the_batch_size_enters_with_its_fourth_root():
    schedule = BatchSize(start=4.0, reference=128)
    assert schedule(TrainStep(batch_size=128)) == pytest.approx(4.0)
    assert schedule(TrainStep(batch_size=8)) == pytest.approx(8.0)  # (128 / 8)^(1/4) = 2
    assert schedule(TrainStep(batch_size=2048)) == pytest.approx(2.0)


def test_each_sample_gets_its_temperature_by_the_spread_of_its_logits():
    teacher = torch.tensor([[1.0, -1.0], [3.0, -3.0], [100.0, -100.0], [0.0, 0.0]])
    found = Spread(base=2.0, least=0.5, most=20.0)(TrainStep(teacher_logits=teacher))
    assert found.tolist() == [[2.0], [6.0], [20.0], [0.5]]
    with pytest.raises(ValueError, match="needs the teacher's logits"):
        Spread()(TrainStep())


def test_a_learned_temperature_starts_at_its_start_and_climbs_where_the_loss_falls():
    schedule = Learned(start=4.0, least=1.0, most=21.0, epochs=10, scale=2.0)
    at = TrainStep(number=25, steps_per_epoch=5, total=100)  # half of ten epochs: lambda = 2 * 1/2
    value = schedule(at)
    assert value.item() == pytest.approx(4.0, abs=1e-5)
    loss = (value - 1.0) ** 2
    loss.backward()
    # dT/da = 20 s (1 - s) with s = 3/20, and d loss / dT = 6, reversed.
    assert schedule.place.grad.item() == pytest.approx(-6.0 * 20 * 0.15 * 0.85, rel=1e-4)
    schedule.place.grad = None
    schedule(TrainStep(number=0, steps_per_epoch=5, total=100)).backward()
    assert schedule.place.grad.item() == 0.0  # lambda is zero in the first step
    schedule(TrainStep(number=500, steps_per_epoch=5, total=900)).backward()
    assert schedule.place.grad.item() == pytest.approx(-2.0 * 20 * 0.15 * 0.85, rel=1e-4)


def test_a_balanced_weight_makes_both_gradients_equally_long():
    features = torch.randn(4, 6, requires_grad=True)
    labels, value = (features**2).sum(), 7.0 * features.sum()
    for share in (1.0, 0.25):
        weight = Balanced(share=share)(labels, value, features)
        first, second = (
            torch.autograd.grad(each, features, retain_graph=True)[0].norm()
            for each in (labels, weight * value)
        )
        assert second.item() == pytest.approx(share * first.item(), rel=1e-5)
    assert not weight.requires_grad


def test_a_loss_without_gradient_gets_the_most():
    features = torch.randn(2, 3, requires_grad=True)
    assert Balanced(most=9.0)(features.sum(), torch.tensor(0.0), features).item() == 9.0
    other = torch.randn(2, requires_grad=True).sum()
    assert Balanced(most=9.0)(features.sum(), other, features).item() == 9.0
    assert Balanced()(torch.tensor(0.0), features.sum(), features).item() == 0.0


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_a_value_lies_within_the_bounds_that_are_checked(name):
    entry = SCHEDULES.get(name)
    keys = {"start": 8.0, "end": 2.0} if "end" in entry.parameters else {}
    keys = {"start": 8.0} if name == "inverse-sqrt" else keys
    schedule = entry.make(**keys)
    if isinstance(schedule, Balanced):
        return
    least, most = schedule.bounds
    for at in AT:
        given = schedule(TrainStep(at.number, at.steps_per_epoch, at.total, 32, torch.randn(4, 3)))
        low, high = (given.min().item(), given.max().item()) if name == "spread" else (given,) * 2
        assert least <= float(low) <= float(high) <= most


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"schedule": "linaer", "start": 1, "end": 2}, "unknown schedule 'linaer'"),
        ({"schedule": "linear", "start": 1}, "required, but missing"),
        ({"schedule": "linear", "start": 1, "end": 2, "stop": 3}, "unknown key 'stop'"),
        ({"schedule": "learned", "start": 0.5}, "start must lie between"),
        ({"schedule": "balanced"}, "balances weights"),
    ],
)
def test_a_wrong_schedule_for_a_parameter_is_refused(table, said):
    with pytest.raises(InputError, match=said) as caught:
        schedule_for_parameter(table, "here")
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"schedule": "linear", "start": 1, "end": -1}, "the weight would range from -1 to 1"),
        ({"schedule": "spread"}, "'spread' can't schedule a weight"),
        ({"schedule": "learned"}, "'learned' can't schedule a weight"),
    ],
)
def test_a_wrong_schedule_for_a_weight_is_refused(table, said):
    with pytest.raises(InputError, match=said):
        schedule_for_weight(table, "here")


def test_a_learned_temperature_gets_its_gradient_through_kl():
    schedule, loss = Learned(start=2.0, epochs=1), KL()
    student, teacher = torch.randn(4, 5), torch.randn(4, 5)
    loss.temperature = schedule(TrainStep(number=9, steps_per_epoch=3, total=10))
    loss(student, teacher, torch.zeros(4, dtype=torch.int64)).backward()
    plain = torch.tensor(2.0, requires_grad=True)
    loss.temperature = plain
    loss(student, teacher, torch.zeros(4, dtype=torch.int64)).backward()
    share = 1 / 20
    expected = -plain.grad * 20 * share * (1 - share)
    assert torch.allclose(schedule.place.grad, expected, rtol=1e-4)
